"""The list of all projections of the ledger. The engine does not know it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from domain.shared.errors import InvalidInput
from projections.credits.balance import BalanceProjection
from projections.credits.statement import StatementProjection
from projections.engine.projection import Projection
from projections.payments.flags import PaymentFlagsProjection
from projections.payments.payments import PaymentsProjection

ALL_PROJECTIONS: Final[Sequence[Projection]] = (
    BalanceProjection(),
    PaymentFlagsProjection(),
    PaymentsProjection(),
    StatementProjection(),
)


def projections_named(names: Sequence[str]) -> list[Projection]:
    """Return the projections of these names, each once.

    Raises:
        InvalidInput: a name is unknown, or there are no names.
    """
    known = {projection.name: projection for projection in ALL_PROJECTIONS}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InvalidInput("projection_names", f"name some of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]
