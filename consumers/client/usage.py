"""Reports usage: messages with ids minted once, kept until the broker has them."""

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
    """Messages that the broker did not acknowledge in time; their ids stay theirs: report them again."""

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
    """Publishes usage of one worker of the pipeline. Any thread may report.

    A message gets its id, a UUIDv7, when it is reported, and keeps it however often it is sent: the ledger
    charges it once. Reporting waits while 5,000 messages are under way. Leaving the `with` block waits until
    all of them are with the broker.

    Args:
        producer_factory: returns a new `kafka.KafkaProducer`; `consumers.client.sending.PRODUCER_OPTIONS` are
            meant for it. It is called again after a failure.
        source: this worker, for ever: ids are unique within it, such as `/photo-processing/worker-7`.
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
        """Report photos that were processed, and return the message's id.

        `photos` are those of this message alone, 0 to 1,000,000. Without `occurred_at` it happened now.

        Raises:
            msgspec.ValidationError: a value breaks the contract; the text names the field.
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
        """Wait until the broker has everything that was reported.

        Raises:
            NotReported: it does not in time; what is missing stays under way.
        """
        deadline = time.monotonic() + within_s
        while not self._settled():
            if time.monotonic() > deadline:
                raise NotReported(sorted(message.message_id for message in self._sender.in_flight))

    def close(self, within_s: float = FLUSH_S) -> None:
        """Flush, and give up the producer.

        Raises:
            NotReported: see `flush`; the producer is given up all the same.
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

    def _settled(self) -> bool:
        with self._lock:
            return self._sender.wait_acknowledged(_MAINTENANCE_INTERVAL_S)

    def _maintain(self) -> None:
        """Notice failures, and send again, while nobody reports."""
        while not self._closed.wait(_MAINTENANCE_INTERVAL_S):
            with self._lock:
                self._sender.maintain()


def uuid7(milliseconds: int | None = None, random_bits: Callable[[int], int] = secrets.randbits) -> UUID:
    """Return a UUIDv7 (RFC 9562): 48 bits of milliseconds (now, unless given), then 74 random ones."""
    if milliseconds is None:
        milliseconds = time.time_ns() // 1_000_000
    number = milliseconds << 80 | 0x7 << 76 | random_bits(12) << 64
    return UUID(int=number | 0b10 << 62 | random_bits(62))
