"""The soak test finds the errors it is made for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from benchmarks.soak.load import Findings
from benchmarks.soak.receiver import WebhookReceiver
from benchmarks.soak.watch import GROWTH_MB_MAX, LAG_MAX, RSS_MB_MAX, Memory, ProcessMonitor
from domain.webhooks.endpoints import signed_headers

SECRET = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cw=="  # noqa: S105
BODY = b'{"type": "x"}'


@pytest.fixture
def receiver() -> WebhookReceiver:
    receiver = WebhookReceiver(seed=1)
    receiver.secret, receiver.refuses = SECRET, False
    return receiver


def headers(message_id: str, secret: str = SECRET) -> dict[str, str]:
    return dict(signed_headers([secret], message_id, BODY, datetime.now(UTC)))


def test_a_receiver_counts_each_message_once(receiver: WebhookReceiver) -> None:
    assert [receiver.take(headers(each), BODY) for each in ("msg_1", "msg_2", "msg_1")] == [204] * 3
    assert (receiver.taken, receiver.repeats, receiver.forged) == ({"msg_1", "msg_2"}, 1, 0)


def test_a_receiver_finds_wrong_signatures(receiver: WebhookReceiver) -> None:
    assert receiver.take(headers("msg_1", "whsec_YW5vdGhlcg=="), BODY) == 400
    assert receiver.take(headers("msg_1"), BODY + b" ") == 400
    assert (receiver.taken, receiver.forged) == (set(), 2)


def test_a_receiver_rejects_some_messages(receiver: WebhookReceiver) -> None:
    receiver.refuses = True
    answers = [receiver.take(headers(f"msg_{number}"), BODY) for number in range(300)]
    assert 0 < answers.count(503) == receiver.refused == 300 - len(receiver.taken)


@pytest.mark.parametrize(
    ("memory", "lag", "found"),
    [
        (Memory(1, 90, 90 + GROWTH_MB_MAX, 200), LAG_MAX, []),
        (Memory(1, 90, 91 + GROWTH_MB_MAX, 200), 0, ["api grew from 90 to 131 MB"]),
        (Memory(1, 90, 90, RSS_MB_MAX + 1), 0, ["api took 501 MB"]),
        (Memory(1, 90, 90, 90), LAG_MAX + 1, ["projections are 5001 positions behind, and stay so"]),
    ],
)
def test_memory_and_lag_have_limits(memory: Memory, lag: int, found: list[str]) -> None:
    service: Any = None
    findings = Findings()
    watch = ProcessMonitor(service, findings)
    watch.memory["api"] = memory
    watch.lags = [(0, 0, 0, 0)] * 30 + [(lag, 0, 0, 0)] * 10
    watch.check_limits()
    assert findings.wrong == found
