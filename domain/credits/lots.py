"""Lots and the order in which they are spent.

Every addition of credits opens a lot, named by the number of its event in the organisation's history.
Charges draw on lots free first, then paid, oldest first within each; what no lot covers is overdraft.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from enum import IntEnum

import msgspec


class LotKind(IntEnum):
    """Free lots (trial, promotional, admin grants, and refunded overdraft) are spent before paid ones."""

    FREE = 0
    PAID = 1


class Lot(msgspec.Struct, array_like=True):
    """Credits that came in together and are not all spent.

    `number` is the version of the event that opened the lot. `size` is the number of credits at its opening.
    `remaining` is the part that is left: 0 < remaining <= size.
    """

    kind: LotKind
    number: int
    size: int
    remaining: int

    @property
    def rank(self) -> tuple[int, int]:
        """Place in the spend order: lower is spent first."""
        return (self.kind, self.number)


class LotAllocation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Credits that moved between a lot and a charge."""

    lot: int
    credits: int


def copy_lots(lots: Sequence[Lot]) -> list[Lot]:
    """Return copies that can change without the originals."""
    return [Lot(lot.kind, lot.number, lot.size, lot.remaining) for lot in lots]


def plan_draws(lots: Sequence[Lot], credits_count: int) -> tuple[tuple[LotAllocation, ...], int]:
    """Return which lots, in spend order, cover a charge, and the overdraft that none of them covers."""
    draws = []
    for lot in lots:
        if credits_count == 0:
            break
        drawn = min(lot.remaining, credits_count)
        draws.append(LotAllocation(lot.number, drawn))
        credits_count -= drawn
    return tuple(draws), credits_count


def draw(lots: list[Lot], draws: Sequence[LotAllocation]) -> None:
    """Take drawn portions out of the lots; an emptied lot is dropped. Draws are in spend order."""
    for allocation in draws:
        first = lots[0]
        assert first.number == allocation.lot, "a draw out of spend order"
        assert first.remaining >= allocation.credits, "a draw larger than its lot"
        first.remaining -= allocation.credits
        if first.remaining == 0:
            del lots[0]


def withdraw(lots: list[Lot], number: int, credits_count: int) -> None:
    """Take credits out of one lot, in any place of the spend order. A lot without credits is removed."""
    (place,) = [place for place, lot in enumerate(lots) if lot.number == number]
    lot = lots[place]
    assert lot.remaining >= credits_count, "more than the lot has"
    lot.remaining -= credits_count
    if lot.remaining == 0:
        del lots[place]


def restore(lots: list[Lot], lot: Lot) -> None:
    """Return `lot.remaining` credits to a lot, reopening it at its original rank if it was empty."""
    for held in lots:
        if held.number == lot.number:
            held.remaining += lot.remaining
            assert held.remaining <= held.size, "a lot above its size"
            return
    insort(lots, lot, key=lambda each: each.rank)
