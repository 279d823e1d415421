"""All projections of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

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
