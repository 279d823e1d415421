"""Free lots are spent before paid ones, each from the oldest."""

import pytest

from domain.credits.lots import Lot, LotAllocation, LotKind, draw, plan_draws, restore


def lot(kind: LotKind, number: int, size: int, remaining: int | None = None) -> Lot:
    return Lot(kind, number, size, size if remaining is None else remaining)


def numbers(lots: list[Lot]) -> list[int]:
    return [each.number for each in lots]


def test_free_lots_precede_paid_ones_and_older_precede_newer() -> None:
    lots: list[Lot] = []
    for kind, number in [(LotKind.PAID, 2), (LotKind.FREE, 9), (LotKind.PAID, 1), (LotKind.FREE, 4)]:
        restore(lots, lot(kind, number, 10))
    assert numbers(lots) == [4, 9, 1, 2]


def test_a_charge_goes_through_the_lots_in_order() -> None:
    lots = [lot(LotKind.FREE, 4, 10), lot(LotKind.FREE, 9, 10), lot(LotKind.PAID, 2, 10)]
    assert plan_draws(lots, 25) == ((LotAllocation(4, 10), LotAllocation(9, 10), LotAllocation(2, 5)), 0)


def test_the_uncovered_part_is_overdraft() -> None:
    assert plan_draws([lot(LotKind.FREE, 1, 10)], 25) == ((LotAllocation(1, 10),), 15)
    assert plan_draws([], 25) == ((), 25)


def test_no_credits_draw_on_no_lot() -> None:
    assert plan_draws([lot(LotKind.FREE, 1, 10)], 0) == ((), 0)


def test_a_charge_of_a_whole_lot_does_not_draw_on_the_next() -> None:
    lots = [lot(LotKind.FREE, 1, 10), lot(LotKind.PAID, 2, 10)]
    assert plan_draws(lots, 10) == ((LotAllocation(1, 10),), 0)


def test_planning_changes_nothing() -> None:
    lots = [lot(LotKind.FREE, 1, 10), lot(LotKind.PAID, 2, 10)]
    plan_draws(lots, 15)
    assert [each.remaining for each in lots] == [10, 10]


def test_drawing_drops_emptied_lots() -> None:
    lots = [lot(LotKind.FREE, 1, 10), lot(LotKind.PAID, 2, 10)]
    draw(lots, [LotAllocation(1, 10), LotAllocation(2, 3)])
    assert lots == [lot(LotKind.PAID, 2, 10, remaining=7)]


def test_drawing_out_of_spend_order_is_a_programming_error() -> None:
    with pytest.raises(AssertionError, match="out of spend order"):
        draw([lot(LotKind.FREE, 1, 10), lot(LotKind.PAID, 2, 10)], [LotAllocation(2, 1)])


def test_drawing_more_than_a_lot_has_is_a_programming_error() -> None:
    with pytest.raises(AssertionError, match="larger than its lot"):
        draw([lot(LotKind.FREE, 1, 10)], [LotAllocation(1, 11)])


def test_returned_credits_go_to_their_lot() -> None:
    lots = [lot(LotKind.FREE, 1, 10, remaining=4)]
    restore(lots, lot(LotKind.FREE, 1, 10, remaining=6))
    assert lots == [lot(LotKind.FREE, 1, 10)]


def test_returned_credits_reopen_an_emptied_lot_at_its_old_place() -> None:
    lots = [lot(LotKind.FREE, 1, 10), lot(LotKind.FREE, 5, 10), lot(LotKind.PAID, 2, 10)]
    restore(lots, lot(LotKind.FREE, 3, 10, remaining=6))
    assert numbers(lots) == [1, 3, 5, 2]


def test_a_lot_never_grows_above_its_size() -> None:
    with pytest.raises(AssertionError, match="above its size"):
        restore([lot(LotKind.FREE, 1, 10, remaining=4)], lot(LotKind.FREE, 1, 10, remaining=7))
