"""Which lots a refund of a charge returns to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from domain.credits.errors import RefundExceedsCharge
from domain.credits.events import (
    ChargeRefunded,
    CreditsGranted,
    CreditsPurchased,
    UsageCharged,
)
from domain.credits.lots import Lot, LotAllocation, LotKind
from domain.shared.aggregate import EventEnvelope
from domain.shared.command_context import HeaderFields
from domain.shared.errors import InvalidInput, InvariantViolation


def lot_opened_by(envelope: EventEnvelope) -> tuple[Lot, ...]:
    """Return the lot that an addition or a refund opened, full; none if all of it paid an overdraft."""
    event, number = envelope.event, envelope.originator_version
    if isinstance(event, CreditsGranted | CreditsPurchased):
        size = event.credits - event.overdraft_covered
        kind = LotKind.FREE if isinstance(event, CreditsGranted) else LotKind.PAID
        return (Lot(kind, number, size, size),) if size else ()
    if isinstance(event, ChargeRefunded):
        return tuple(
            Lot(lot.kind, number, lot.size, lot.size) for lot in event.returned if lot.number == number
        )
    return ()


def refund_charge(
    header: HeaderFields,
    charge: EventEnvelope,
    credits_count: int | None,
    *,
    earlier_refunds: Sequence[ChargeRefunded],
    opened_lots: Sequence[Lot],
    overdraft: int,
    number: int,
    reason: str,
) -> ChargeRefunded:
    """Return the refund of a charge: of a number of credits, or of all that is left of it.

    The part that was drawn last is reversed first: the overdraft, then the lots in reverse spend order. The
    credits pay an open `overdraft` first. The rest reopens its lot at its original rank; if it was charged as
    overdraft, it opens a free lot of the version `number`, which the event will have.

    Raises:
        InvalidInput: credits below 1.
        RefundExceedsCharge: more credits than are left of the charge, or nothing is left.
    """
    event = charge.event
    if not isinstance(event, UsageCharged):
        raise InvariantViolation(f"event {charge.originator_version} is not a charge")
    refunded = sum(refund.credits for refund in earlier_refunds)
    left = event.credits - refunded
    if credits_count is None:
        credits_count = left
    elif credits_count < 1:
        raise InvalidInput("credits", "a refund returns at least 1 credit")
    if credits_count > left or left == 0:
        raise RefundExceedsCharge(
            f"the charge has {left} of its {event.credits} credits left to refund",
            charged=event.credits,
            refundable=left,
        )
    overdraft_covered = min(credits_count, overdraft)
    returned = _returned_lots(
        _reverse_draws(event, skip=refunded, credits_count=credits_count),
        overdraft_covered,
        {lot.number: lot for lot in opened_lots},
        new_lot=number,
    )
    return ChargeRefunded(
        *header,
        charge.originator_version,
        credits_count,
        returned,
        overdraft_covered,
        reason,
        event.run_id,
        event.event_id,
        event.event_name,
    )


_OVERDRAFT: Final = 0
"""Stands for the overdraft among the lots of an allocation: no event has version 0."""


def _reverse_draws(charge: UsageCharged, *, skip: int, credits_count: int) -> list[LotAllocation]:
    """Return the draws to reverse, last drawn first, without those that earlier refunds have reversed."""
    reversed_draws = []
    for allocation in (LotAllocation(_OVERDRAFT, charge.overdraft), *reversed(charge.draws)):
        skipped = min(skip, allocation.credits)
        skip -= skipped
        taken = min(allocation.credits - skipped, credits_count)
        credits_count -= taken
        if taken:
            reversed_draws.append(LotAllocation(allocation.lot, taken))
    return reversed_draws


def _returned_lots(
    reversed_draws: Sequence[LotAllocation], overdraft_covered: int, lots: dict[int, Lot], *, new_lot: int
) -> tuple[Lot, ...]:
    returned = []
    for allocation in reversed_draws:
        paid = min(overdraft_covered, allocation.credits)
        overdraft_covered -= paid
        remaining = allocation.credits - paid
        if remaining == 0:
            continue
        if allocation.lot == _OVERDRAFT:
            returned.append(Lot(LotKind.FREE, new_lot, remaining, remaining))
        else:
            origin = lots[allocation.lot]
            returned.append(Lot(origin.kind, origin.number, origin.size, remaining))
    return tuple(returned)
