"""Signatures of deliveries, and times of retries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from domain.webhooks.endpoints import (
    FAILURE_PERIOD_MAX,
    Delivery,
    endpoint_paused_until,
    retry_at,
    signed_headers,
)
from tests.unit.credits.builders import NOON


def test_a_published_example_of_the_format() -> None:
    """Published by the authors of the format (docs.svix.com, verifying webhooks manually)."""
    headers = signed_headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
        datetime.fromtimestamp(1_614_265_330.9, UTC),
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_each_live_secret_signs() -> None:
    both = signed_headers(["whsec_AAAA", "whsec_BBBB"], "msg_1", b"{}", NOON)["webhook-signature"].split(" ")
    alone = [
        signed_headers([secret], "msg_1", b"{}", NOON)["webhook-signature"]
        for secret in ("whsec_AAAA", "whsec_BBBB")
    ]
    assert both == alone


def test_retries_become_less_frequent_for_five_days() -> None:
    at, attempts, pauses_s = NOON, 0, []
    while True:
        attempts += 1
        following = retry_at(at, attempts=attempts, created_at=NOON, jitter=0)
        if following is None:
            break
        pauses_s.append(round((following - at).total_seconds()))
        at = following
    assert pauses_s[:9] == [5, 20, 80, 320, 1_280, 5_120, 20_480, 28_800, 28_800]
    assert FAILURE_PERIOD_MAX <= at - NOON < FAILURE_PERIOD_MAX + timedelta(hours=8)


def test_jitter_makes_a_delay_up_to_a_fifth_longer() -> None:
    assert retry_at(NOON, attempts=2, created_at=NOON, jitter=1) == NOON + timedelta(seconds=24)
    assert endpoint_paused_until(NOON, failures=2, jitter=0.5) == NOON + timedelta(seconds=2.2)


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (4, 8), (10, 300), (1_000, 300)])
def test_an_endpoint_is_paused_after_failures(failures: int, seconds: int) -> None:
    assert endpoint_paused_until(NOON, failures=failures, jitter=0) == NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("next_attempt_at", "delivered_at", "status"),
    [(NOON, None, "pending"), (None, NOON, "delivered"), (None, None, "given_up")],
)
def test_the_status_of_a_delivery(
    next_attempt_at: datetime | None, delivered_at: datetime | None, status: str
) -> None:
    delivery = Delivery("msg_1", "x", NOON, 1, NOON, 500, "it answered 500", next_attempt_at, delivered_at)
    assert delivery.status == status
