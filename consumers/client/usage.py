"""Reports usage. A message keeps its id and is sent until the broker has acknowledged it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, ClassVar, Final, Self
from uuid import UUID

import msgspec

from consumers.client.sending import ReliableSender
from domain.credits.usage import PhotoEvent, Usage, UsageReport, User
from domain.pricing.rate_card import UsageType

USAGE_TOPIC: Final = "photo-processing.usage.v1"
FLUSH_S: Final = 30.0
_HEADERS: Final = [("content-type", b"application/cloudevents+json")]
_MAINTENANCE_INTERVAL_S: Final = 0.1
_encode: Final = msgspec.json.Encoder().encode
_check: Final = msgspec.json.Decoder(UsageReport).decode


class NotReported(Exception):
    """The broker did not acknowledge these messages in time. They keep their ids and are still being sent."""

    def __init__(self, message_ids: list[str]) -> None:
        super().__init__(f"{len(message_ids)} usage messages were not acknowledged")
        self.message_ids = message_ids


class _Message(msgspec.Struct, frozen=True):
    key: bytes
    value: bytes
    message_id: str

    waits: ClassVar[bool] = False

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        return _HEADERS


class UsageReporter:
    """Publishes the usage of one pipeline worker. Thread-safe.

    A message gets its id, a UUIDv7, when it is reported. It keeps this id when it is sent again, so the
    ledger charges it only once. `report` waits while 5,000 messages are in flight. Leaving the `with` block
    waits until the broker has acknowledged all messages.

    Args:
        producer_factory: returns a new `kafka.KafkaProducer` with
            `consumers.client.sending.PRODUCER_OPTIONS`. It is called again after a failure.
        source: the permanent name of the worker, such as `/photo-processing/worker-7`. Ids are unique per
            source.
    """

    def __init__(self, producer_factory: Callable[[], Any], source: str, *, topic: str = USAGE_TOPIC) -> None:
        self._source = source
        self._stop = Event()
        self._closed = Event()
        self._sender: ReliableSender[_Message] = ReliableSender(producer_factory, topic, self._stop)
        self._lock = Lock()
        self._maintenance_thread = Thread(target=self._maintain, name="usage-reporter", daemon=True)
        self._maintenance_thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def report(
        self,
        organisation_id: str,
        run_id: str,
        usage_type: UsageType,
        photos: int,
        *,
        event_id: int,
        event_name: str,
        ai_search: bool = True,
        user: str | None = None,
        hold_id: str | None = None,
        occurred_at: datetime | None = None,
    ) -> str:
        """Report processed photos, and return the id of the message.

        `photos` is the number of photos of this message only, 0 to 1,000,000. `occurred_at` defaults to now.

        Raises:
            msgspec.ValidationError: a value is invalid; the text names the field.
            RuntimeError: the reporter is closed.
        """
        message_id = str(uuid7())
        report = UsageReport.of(
            self._source,
            message_id,
            organisation_id,
            (occurred_at or datetime.now(UTC)).astimezone(UTC),
            Usage(
                run_id,
                usage_type,
                photos,
                ai_search,
                PhotoEvent(event_id, event_name),
                None if user is None else User(user),
                hold_id,
            ),
        )
        value = _encode(report)
        _check(value)

        with self._lock:
            if self._closed.is_set():
                raise RuntimeError("the reporter is closed")
            self._sender.send(_Message(organisation_id.encode(), value, message_id))
        return message_id

    def flush(self, within_s: float = FLUSH_S) -> None:
        """Wait until the broker has acknowledged all reported messages.

        Raises:
            NotReported: some are not acknowledged in time. They stay in flight.
        """
        deadline = time.monotonic() + within_s
        while not self._is_flushed():
            if time.monotonic() > deadline:
                raise NotReported(sorted(message.message_id for message in self._sender.in_flight))

    def close(self, within_s: float = FLUSH_S) -> None:
        """Flush, and close the producer.

        Raises:
            NotReported: see `flush`. The producer is closed anyway.
        """
        if self._closed.is_set():
            return
        try:
            self.flush(within_s)
        finally:
            self._closed.set()
            self._maintenance_thread.join()
            with self._lock:
                self._stop.set()
                self._sender.close()

    def _is_flushed(self) -> bool:
        with self._lock:
            return self._sender.wait_acknowledged(_MAINTENANCE_INTERVAL_S)

    def _maintain(self) -> None:
        """Detect failures and send records again while no message is reported."""
        while not self._closed.wait(_MAINTENANCE_INTERVAL_S):
            with self._lock:
                self._sender.maintain()


def uuid7(milliseconds: int | None = None, random_bits: Callable[[int], int] = secrets.randbits) -> UUID:
    """Return a UUIDv7 (RFC 9562): 48 bits of milliseconds (default: now), then 74 random bits."""
    if milliseconds is None:
        milliseconds = time.time_ns() // 1_000_000
    number = milliseconds << 80 | 0x7 << 76 | random_bits(12) << 64
    return UUID(int=number | 0b10 << 62 | random_bits(62))
