"""Waves: all records of a wave must be acknowledged before the next wave is sent."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError

from consumers.publishing import ordered_producer
from consumers.publishing.ordered_producer import OrderedProducer


class FakeProducer:
    """A producer whose broker refuses one value. It records the order of the calls."""

    def __init__(self, refused: bytes | None = None) -> None:
        self.steps: list[str] = []
        self.headers: list[Any] = []
        self.closed = 0
        self._refused = refused

    def send(self, topic: str, *, key: bytes, value: bytes, headers: Any) -> Any:
        self.steps.append(f"send {key.decode()} to {topic}")
        self.headers.append(headers)
        return FakeFuture(value == self._refused)

    def flush(self, timeout: float) -> None:
        assert timeout > ordered_producer.DELIVERY_TIMEOUT_S, "nothing is in flight after a flush"
        self.steps.append("flush")

    def close(self, timeout: float) -> None:
        self.closed += 1
        raise KafkaTimeoutError


class FakeFuture:
    def __init__(self, fails: bool) -> None:
        self._fails = fails

    def get(self, timeout: float) -> None:
        if self._fails:
            raise KafkaTimeoutError


def messages(*sizes: int) -> list[tuple[bytes, bytes]]:
    return [(str(number).encode(), b"x" * size) for number, size in enumerate(sizes)]


WAVE_BYTES = ordered_producer._WAVE_BYTES


@pytest.fixture(autouse=True)
def small_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered_producer, "_WAVE_BYTES", 1_000)


def test_a_wave_is_acknowledged_before_the_next_one_is_sent() -> None:
    producer = FakeProducer()
    assert (
        OrderedProducer(lambda: producer).send("t", "application/json", messages(300, 300, 300, 5_000, 1))
        == 5
    )
    assert producer.steps == [
        *("send 0 to t", "send 1 to t", "flush"),
        *("send 2 to t", "flush"),
        *("send 3 to t", "flush"),
        *("send 4 to t", "flush"),
    ]
    assert producer.headers == [[("content-type", b"application/json")]] * 5


def test_nothing_follows_a_wave_that_failed() -> None:
    producer = FakeProducer(refused=b"x" * 800)
    sender = OrderedProducer(lambda: producer)
    with pytest.raises(KafkaTimeoutError):
        sender.send("t", "application/json", messages(1, 800, 300))
    assert producer.steps[-1] == "flush"
    assert "send 2 to t" not in producer.steps


def test_a_failed_producer_is_replaced() -> None:
    producers: list[FakeProducer] = []

    def connect() -> FakeProducer:
        producers.append(FakeProducer())
        return producers[-1]

    sender = OrderedProducer(connect)
    sender.send("t", "application/json", messages(1))
    sender.send("t", "application/json", messages(1))
    sender.close()
    sender.close()
    assert [producer.closed for producer in producers] == [1]
    sender.send("t", "application/json", messages(1))
    assert len(producers) == 2


def test_a_wave_fits_in_a_batch_that_brokers_accept() -> None:
    assert WAVE_BYTES < int(ordered_producer.PRODUCER_OPTIONS["batch_size"]) < 1_048_588
