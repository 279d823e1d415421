"""Sends records and retries until the broker has acknowledged each of them."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from threading import Condition, Event
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeVar

from kafka.errors import KafkaError

from domain.shared.backoff import Backoff

log = logging.getLogger(__name__)

PRODUCER_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 5,
        "batch_size": 131_072,
        "max_block_ms": 2_000,
        "request_timeout_ms": 5_000,
        "delivery_timeout_ms": 10_000,
        "reconnect_backoff_max_ms": 1_000,
        "bootstrap_timeout_ms": 2_000,
        "allow_auto_create_topics": False,  # an auto-created topic has the wrong number of partitions
    }
)
"""Options for a `KafkaProducer`: no lost records, no reordering, and failures are reported within seconds."""

IN_FLIGHT_MAX: Final = 5_000
ACKNOWLEDGEMENT_TIMEOUT_S: Final = 10.0
_WAIT_S: Final = 0.05
_BACKOFF_INITIAL_S: Final = 0.1
_BACKOFF_MAX_S: Final = 2.0
_CLOSE_S: Final = 2.0
_Recoverable: Final = (KafkaError, OSError)


class Record(Protocol):
    """A record to send. If `waits` is true, all earlier records must be acknowledged first."""

    @property
    def key(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...
    @property
    def headers(self) -> list[tuple[str, bytes]]: ...
    @property
    def waits(self) -> bool: ...


RecordT = TypeVar("RecordT", bound=Record)


class ReliableSender(Generic[RecordT]):
    """Owns the producer. At most `IN_FLIGHT_MAX` records wait for their acknowledgement.

    A producer that failed, or acknowledged nothing for `ACKNOWLEDGEMENT_TIMEOUT_S`, is replaced. The
    unacknowledged records are sent again, unchanged and in the same order. Only one thread at a time may use
    a sender.

    `acknowledged` is called once per record, with partition and offset, on the producer's own thread.
    """

    def __init__(
        self,
        producer_factory: Callable[[], Any],
        topic: str,
        stop: Event,
        acknowledged: Callable[[RecordT, int, int], None] = lambda _record, _partition, _offset: None,
    ) -> None:
        self._producer_factory = producer_factory
        self._topic = topic
        self._stop = stop
        self._on_acknowledged = acknowledged
        self._producer: Any = None
        self._generation = 0
        self._in_flight: dict[int, RecordT] = {}
        self._unsent: deque[int] = deque()
        self._next_number = 0
        self._changed = Condition()
        self._failure: BaseException | None = None
        self._last_acknowledged_at_s = 0.0
        self._backoff = Backoff(_BACKOFF_INITIAL_S, _BACKOFF_MAX_S)

    def send(self, record: RecordT) -> bool:
        """Send a record.

        Waits while too many are in flight. Return False if the sender was stopped before.
        """
        room = 0 if record.waits else IN_FLIGHT_MAX - 1
        while not self._stop.is_set() and len(self._in_flight) > room:
            self._wait()
        if self._stop.is_set():
            return False
        with self._changed:
            if not self._in_flight:
                self._last_acknowledged_at_s = time.monotonic()
            self._in_flight[self._next_number] = record
        self._unsent.append(self._next_number)
        self._next_number += 1
        self.maintain()
        return True

    def maintain(self) -> None:
        """Replace a failed producer and send unsent records.

        Returns immediately if there is nothing to do.
        """
        try:
            self._check()
            while self._unsent:
                self._send_numbered(self._unsent[0])
                self._unsent.popleft()
        except _Recoverable as error:
            self._restart_producer(error)

    def wait_acknowledged(self, seconds: float) -> bool:
        """Wait until all records are acknowledged, at most `seconds`. Return whether they are."""
        deadline_s = time.monotonic() + seconds
        while self._in_flight and time.monotonic() < deadline_s:
            self._wait()
        return not self._in_flight

    @property
    def in_flight(self) -> list[RecordT]:
        """The unacknowledged records. The broker may or may not have received them."""
        with self._changed:
            return list(self._in_flight.values())

    def close(self) -> None:
        """Close the producer. Records in flight stay unacknowledged."""
        self._drop_producer()

    def _wait(self) -> None:
        self.maintain()
        with self._changed:
            if self._in_flight:
                self._changed.wait(_WAIT_S)

    def _check(self) -> None:
        with self._changed:
            failure = self._failure
            is_waiting = self._producer is not None and bool(self._in_flight)
            has_timed_out = (
                is_waiting and time.monotonic() - self._last_acknowledged_at_s > ACKNOWLEDGEMENT_TIMEOUT_S
            )
        if failure is not None:
            raise failure
        if has_timed_out:
            raise TimeoutError(f"nothing was acknowledged for {ACKNOWLEDGEMENT_TIMEOUT_S:.0f} s")

    def _send_numbered(self, number: int) -> None:
        record = self._in_flight.get(number)
        if record is None:
            return  # the previous producer received the acknowledgement after all
        if self._producer is None:
            self._producer = self._producer_factory()
            self._last_acknowledged_at_s = time.monotonic()
        future = self._producer.send(self._topic, key=record.key, value=record.value, headers=record.headers)
        future.add_callback(partial(self._acknowledged, number))
        future.add_errback(partial(self._failed, self._generation))

    def _acknowledged(self, number: int, metadata: Any) -> None:
        with self._changed:
            record = self._in_flight.pop(number, None)
            if record is None:
                return  # the repeated record was acknowledged first
            self._on_acknowledged(record, metadata.partition, metadata.offset)
            self._last_acknowledged_at_s = time.monotonic()
            self._backoff.reset()
            self._changed.notify_all()

    def _failed(self, generation: int, error: BaseException) -> None:
        with self._changed:
            if generation == self._generation and self._failure is None:
                self._failure = error if isinstance(error, _Recoverable) else KafkaError(str(error))
                self._changed.notify_all()

    def _restart_producer(self, error: BaseException) -> None:
        log.warning("the producer failed: %s; sending %d records again", error, len(self._in_flight))
        self._drop_producer()
        with self._changed:
            self._failure = None
            self._unsent = deque(self._in_flight)
        if self._stop.is_set():
            time.sleep(_BACKOFF_INITIAL_S)  # draining has little time: retry quickly
        else:
            self._stop.wait(self._backoff.next_s)
        self._backoff.advance()

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        with self._changed:
            self._generation += 1
        if producer is None:
            return
        if self._in_flight:
            # `close` would wait for records that are never acknowledged, and then fail.
            sender = getattr(producer, "_sender", None)
            if sender is not None:
                sender.force_close()
        with suppress(*_Recoverable):
            producer.close(timeout=_CLOSE_S)
