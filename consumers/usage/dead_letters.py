"""The dead-letter topic: original refused records, with reason and origin in headers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from consumers.usage.ports import DeadLetterRecord
from domain.shared.errors import DeadLettersUnavailable

ACKNOWLEDGED_WITHIN_S: Final = 30.0
HEADER_PREFIX: Final = "dlq-"

_TooLarge: Final = (MessageSizeTooLargeError, RecordListTooLargeError)


class KafkaDeadLetters:
    """See `consumers.usage.ports.DeadLetters`. A record is delivered at least once.

    A record may be larger here than in its own topic: it was compressed there, and it had no `dlq-` headers.
    A record that is too large is sent without its content, so that it does not block other records. Its
    topic, partition and offset show where the content is.

    `connect` returns a `kafka.KafkaProducer` that waits for all replicas. It is called again after a failure,
    because an idempotent producer cannot be used after a fatal error.
    """

    def __init__(self, connect: Callable[[], Any], topic: str) -> None:
        self.topic = topic
        self._connect = connect
        self._producer: Any = None

    def send(self, letters: Sequence[DeadLetterRecord]) -> Callable[[], None]:
        try:
            if self._producer is None:
                self._producer = self._connect()
            sent = [(letter, self._send(letter)) for letter in letters]
        except (KafkaError, OSError) as error:
            raise self._unavailable(error) from error

        def wait() -> None:
            try:
                self._send_origins_only([letter for letter, future in sent if not _acknowledged(future)])
            except (KafkaError, OSError) as error:
                raise self._unavailable(error) from error

        return wait

    def close(self) -> None:
        """Close the connection. Acknowledged records are safe."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=1.0)

    def _send(self, letter: DeadLetterRecord) -> Any:
        value = letter.record_value
        if value is None and letter.record_key is None:
            value = b""  # the client refuses a record without key and value
        headers = [*letter.record_headers, *_origin(letter)]
        try:
            return self._producer.send(self.topic, key=letter.record_key, value=value, headers=headers)
        except MessageSizeTooLargeError:
            return self._send_origin_only(letter)

    def _send_origins_only(self, too_large: Sequence[DeadLetterRecord]) -> None:
        if too_large:
            self.close()  # a refused batch may leave a gap in the sequence of an idempotent producer
            self._producer = self._connect()
            for future in [self._send_origin_only(letter) for letter in too_large]:
                future.get(timeout=ACKNOWLEDGED_WITHIN_S)

    def _send_origin_only(self, letter: DeadLetterRecord) -> Any:
        headers = [*_origin(letter), (HEADER_PREFIX + "omitted", b"key, value and headers: too large")]
        return self._producer.send(self.topic, value=b"", headers=headers)

    def _unavailable(self, error: Exception) -> DeadLettersUnavailable:
        self.close()
        return DeadLettersUnavailable(f"the dead-letter topic {self.topic} does not accept records: {error}")


def _acknowledged(future: Any) -> bool:
    """Wait for the acknowledgement. Return False if the record is too large for the broker."""
    try:
        future.get(timeout=ACKNOWLEDGED_WITHIN_S)
    except _TooLarge:
        return False
    return True


def _origin(letter: DeadLetterRecord) -> list[tuple[str, bytes]]:
    origin = {
        "reason": letter.reason,
        "field": letter.field,
        "topic": letter.topic,
        "partition": str(letter.partition),
        "offset": str(letter.record_offset),
        "time": letter.rejected_at.isoformat().replace("+00:00", "Z"),
    }
    return [(HEADER_PREFIX + name, text.encode()) for name, text in origin.items() if text is not None]
