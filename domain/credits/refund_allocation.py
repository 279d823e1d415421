"""Which lots a refund of a charge returns to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from domain.credits.events import (
    ChargeRefunded,
    CreditsGranted,
    CreditsPurchased,
    UsageCharged,
)
from domain.credits.lots import Lot, LotAllocation, LotKind
from domain.shared.aggregate import EventEnvelope


def lot_opened_by(envelope: EventEnvelope) -> tuple[Lot, ...]:
    """Return the lot an addition or a refund opened, full, as it stood then; none if all paid overdraft."""
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


_OVERDRAFT: Final = 0
"""Stands for the overdraft where portions name lots: no event has version 0."""


def _reverse_draws(charge: UsageCharged, *, skip: int, credits_count: int) -> list[LotAllocation]:
    """Return the portions to undo, last drawn first, past what earlier refunds have undone."""
    undone = []
    for allocation in (LotAllocation(_OVERDRAFT, charge.overdraft), *reversed(charge.draws)):
        skipped = min(skip, allocation.credits)
        skip -= skipped
        taken = min(allocation.credits - skipped, credits_count)
        credits_count -= taken
        if taken:
            undone.append(LotAllocation(allocation.lot, taken))
    return undone


def _returned_lots(
    undone: Sequence[LotAllocation], overdraft_covered: int, lots: dict[int, Lot], *, new_lot: int
) -> tuple[Lot, ...]:
    returned = []
    for allocation in undone:
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
