"""The answer to every command on credits."""

from __future__ import annotations

from datetime import datetime

import msgspec

from domain.credits.holds import Hold
from domain.credits.organisation import Organisation


class HoldResult(msgspec.Struct, frozen=True):
    """A hold after a command on it: `credits` were held, `remaining` of them still are.

    `charged` is what a settlement charged for photos that no message had reported.
    """

    hold_id: str
    run_id: str
    status: str
    credits: int
    remaining: int
    expires_at: datetime
    released: int = 0
    charged: int = 0


class CommandResult(msgspec.Struct, frozen=True):
    """The answer to every command: the organisation after it.

    `version` is the number of the last event in the organisation's history, after a purchase that of the
    purchase. `balance`, `available` and `credits` are credits, amounts are minor units of the currency.
    """

    organisation_id: str
    version: int
    balance: int
    credits: int = 0
    amount_minor: int | None = None
    tax_minor: int | None = None
    currency: str | None = None
    available: int = 0
    hold: HoldResult | None = None


def result_of(organisation: Organisation, credits_count: int = 0) -> CommandResult:
    """Return the answer of a command that moved a number of credits."""
    return CommandResult(
        organisation.organisation_id,
        organisation.version,
        organisation.balance,
        credits_count,
        available=organisation.available,
    )


def hold_result_of(
    organisation: Organisation, hold: Hold, status: str, *, released: int = 0, charged: int = 0
) -> CommandResult:
    """Return the answer of a command on a hold, given as it was while it was open."""
    is_open = status == "open"
    return msgspec.structs.replace(
        result_of(organisation, hold.size if is_open else 0),
        hold=HoldResult(
            hold.hold_id,
            hold.request.run_id,
            status,
            hold.size,
            hold.remaining if is_open else 0,
            hold.expires_at,
            released,
            charged,
        ),
    )
