"""Quotas: one minute's quota at once, then an even refill; each caller has its own."""

from __future__ import annotations

from api.http.rate_limits import BUCKETS_MAX, Quota, headers_of


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_quota_is_used_and_refilled_evenly() -> None:
    clock = Clock()
    quota = Quota("principal", 6, clock)
    taken = [quota.take("u-1") for _ in range(7)]
    assert [each.remaining for each in taken] == [5, 4, 3, 2, 1, 0, 0]
    assert [each.is_exceeded for each in taken] == [False] * 6 + [True]
    assert (taken[0].reset_in_s, taken[5].reset_in_s) == (10, 60)
    assert taken[6].retry_in_s == 10

    clock.now_s += 9
    assert quota.take("u-1").retry_in_s == 1
    clock.now_s += 1
    assert not quota.take("u-1").is_exceeded
    clock.now_s += 3_600
    assert quota.take("u-1").remaining == 5


def test_each_caller_has_its_own_quota() -> None:
    quota = Quota("principal", 1, Clock())
    assert not quota.take("u-1").is_exceeded
    assert quota.take("u-1").is_exceeded
    assert not quota.take("u-2").is_exceeded


def test_memory_is_bounded_and_frequent_callers_are_kept() -> None:
    quota = Quota("principal", 1, Clock())
    quota.take("often")
    for number in range(2 * BUCKETS_MAX):
        quota.take(f"u-{number}")
        if number % 1_000 == 0:
            assert quota.take("often").is_exceeded
    assert not quota.take("u-0").is_exceeded


def test_headers_have_the_remaining_quota() -> None:
    clock = Clock()
    taken = [Quota("principal", 60, clock).take("u-1"), Quota("organisation", 120, clock).take("org-1")]
    assert headers_of(taken) == {
        "RateLimit-Policy": '"principal";q=60;w=60, "organisation";q=120;w=60',
        "RateLimit": '"principal";r=59;t=1, "organisation";r=119;t=1',
    }
    assert headers_of([]) == {}
