"""Sends records in order: records of one key never overtake each other, even with retries of the client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from kafka.errors import KafkaError

from consumers.publishing.feeds import Message

PRODUCER_BATCH_BYTES: Final = 900_000
"""Below the default limit of brokers, 1 MiB."""
DELIVERY_TIMEOUT_S: Final = 10.0

_WAVE_BYTES: Final = 600_000
_OVERHEAD_BYTES: Final = 100
_FLUSH_TIMEOUT_S: Final = DELIVERY_TIMEOUT_S + 5.0

PRODUCER_OPTIONS: Final = {
    "batch_size": PRODUCER_BATCH_BYTES,
    "linger_ms": 1_000,
    "request_timeout_ms": 5_000,
    "delivery_timeout_ms": int(1_000 * DELIVERY_TIMEOUT_S),
    "max_block_ms": 5_000,
    # An auto-created topic would have the broker's defaults: not compacted.
    "allow_auto_create_topics": False,
}
"""The required options of the `kafka.KafkaProducer`: a batch is sent only when it is flushed."""


class OrderedProducer:
    """Sends records in waves. A wave is one batch per partition, and is acknowledged before the next wave.

    When the Kafka client gives up on a batch, it still sends the next batch of the same partition. A retry of
    the first batch would then be out of order. Here there is no next batch until the current one is
    acknowledged.

    `connect` returns a producer with `PRODUCER_OPTIONS`. It is called again after a failure, because an
    idempotent producer cannot be used after a fatal error.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._producer: Any = None

    def send(self, topic: str, content_type: str, messages: Iterable[Message]) -> int:
        """Send messages, wait until the broker has acknowledged all of them, and return their number.

        Raises:
            KafkaError: some messages may not be on the topic. Send all messages again.
        """
        if self._producer is None:
            self._producer = self._connect()
        headers = [("content-type", content_type.encode())]
        count = wave_bytes = 0
        wave: list[Any] = []
        for key, value in messages:
            record_bytes = len(key) + len(value) + _OVERHEAD_BYTES
            if wave and wave_bytes + record_bytes > _WAVE_BYTES:
                self._await_acknowledgements(wave)
                wave, wave_bytes = [], 0
            wave.append(self._producer.send(topic, key=key, value=value, headers=headers))
            wave_bytes += record_bytes
            count += 1
        self._await_acknowledgements(wave)
        return count

    def close(self) -> None:
        """Close the producer. Unacknowledged records may or may not be on the topic."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError):
                producer.close(timeout=1.0)

    def _await_acknowledgements(self, wave: list[Any]) -> None:
        self._producer.flush(timeout=_FLUSH_TIMEOUT_S)
        for future in wave:
            future.get(timeout=0)
