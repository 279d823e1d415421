"""Sends records so that those of one key never overtake each other, whatever the client sends again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from kafka.errors import KafkaError

from consumers.publishing.feeds import Message

PRODUCER_BATCH_BYTES: Final = 900_000
"""Below what brokers take by default, 1 MiB."""
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
    # A producer that made the topic would make it with the broker's defaults: not compacted.
    "allow_auto_create_topics": False,
}
"""Options of the `kafka.KafkaProducer` this needs: a batch goes out when it is flushed, not before."""


class OrderedProducer:
    """Sends in waves, each small enough to be one batch per partition, and waits for every wave.

    A client that gives up on a batch still sends the next one of the same partition: a gap in the order that
    sending again cannot close. Here the next one is not there before the one before it is acknowledged.

    `connect` returns a producer with `PRODUCER_OPTIONS`; after a failure it is called again, since an
    idempotent producer that met a fatal error stays broken.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._producer: Any = None

    def send(self, topic: str, content_type: str, messages: Iterable[Message]) -> int:
        """Return the number of records when the broker has acknowledged all of them.

        Raises:
            KafkaError: some may not be on the topic. Send all of them again.
        """
        if self._producer is None:
            self._producer = self._connect()
        headers = [("content-type", content_type.encode())]
        sent = wave_bytes = 0
        wave: list[Any] = []
        for key, value in messages:
            record_bytes = len(key) + len(value) + _OVERHEAD_BYTES
            if wave and wave_bytes + record_bytes > _WAVE_BYTES:
                self._await_acknowledgements(wave)
                wave, wave_bytes = [], 0
            wave.append(self._producer.send(topic, key=key, value=value, headers=headers))
            wave_bytes += record_bytes
            sent += 1
        self._await_acknowledgements(wave)
        return sent

    def close(self) -> None:
        """Forget the connection; what was sent and not acknowledged may or may not be on the topic."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError):
                producer.close(timeout=1.0)

    def _await_acknowledgements(self, wave: list[Any]) -> None:
        self._producer.flush(timeout=_FLUSH_TIMEOUT_S)
        for future in wave:
            future.get(timeout=0)
