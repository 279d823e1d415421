"""The waits between failed attempts."""

from __future__ import annotations

from domain.shared.backoff import Backoff


def test_waits_double_up_to_the_limit() -> None:
    backoff = Backoff(0.1, 0.5)
    assert [backoff.advance() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_a_success_starts_from_the_first_wait_again() -> None:
    backoff = Backoff(1.0, 30.0)
    backoff.advance()
    backoff.advance()
    backoff.reset()
    assert backoff.next_s == 1.0
    assert backoff.advance() == 1.0
