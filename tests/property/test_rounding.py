"""A run is charged for all its photos, rounded up once, however its messages are split."""

from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS, credits_for
from domain.shared.money import cost_of
from tests.unit.credits.builders import NOON, charged, opened, usage

rates = st.integers(0, 3 * WHOLE_CREDIT_MILLIONTHS) | st.sampled_from([0, 100_000, 333_333, 1_000_000])
chunks = st.lists(st.integers(0, 1_000_000) | st.integers(0, 12), min_size=1, max_size=40)


@given(chunks=chunks, rate=rates)
def test_a_run_in_chunks_costs_the_same_as_the_whole(chunks: list[int], rate: int) -> None:
    organisation = opened(trial_credits=1_000)
    charges = [charged(organisation.charge(usage(photos), rate, NOON)).credits for photos in chunks]
    assert sum(charges) == ceil(sum(chunks) * Fraction(rate, WHOLE_CREDIT_MILLIONTHS))
    assert min(charges) >= 0
    assert organisation.balance == 1_000 - sum(charges)


@given(messages=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=40), rate=rates)
def test_interleaved_runs_do_not_affect_each_other(messages: list[tuple[str, int]], rate: int) -> None:
    organisation = opened()
    for run_id, photos in messages:
        organisation.charge(usage(photos, run_id=run_id), rate, NOON)
    totals = [sum(photos for each, photos in messages if each == run_id) for run_id in "abc"]
    assert -organisation.balance == sum(
        ceil(total * Fraction(rate, WHOLE_CREDIT_MILLIONTHS)) for total in totals
    )


@given(photos=st.integers(0, 10**12), rate=st.integers(0, 10**9))
def test_rounding_up_is_exact_for_large_numbers(photos: int, rate: int) -> None:
    assert credits_for(photos, rate) == ceil(photos * Fraction(rate, WHOLE_CREDIT_MILLIONTHS))


@given(
    credits_count=st.integers(1, 10**12),
    price=st.integers(0, 10**10),
    tax_per_cent=st.sampled_from([0, 5, 12, 18, 28, 100]),
    fee=st.integers(0, 10**12),
)
def test_amounts_are_within_half_a_minor_unit(
    credits_count: int, price: int, tax_per_cent: int, fee: int
) -> None:
    cost = cost_of(credits_count, price, tax_per_cent, fee_minor=fee)
    exact_amount = Fraction(credits_count * price, 10_000) + fee
    exact_tax = cost.amount_minor * Fraction(tax_per_cent, 100)
    half = Fraction(1, 2)
    assert -half < cost.amount_minor - exact_amount <= half, "half rounds up"
    assert -half < cost.tax_minor - exact_tax <= half, "half rounds up"
