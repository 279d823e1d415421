"""Sends records until each is acknowledged, whatever happens to the broker in between."""

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
        "allow_auto_create_topics": False,  # a topic made by accident has the wrong number of partitions
    }
)
"""For the `KafkaProducer` of a factory: nothing lost, nothing out of order, and no long silence."""

IN_FLIGHT_MAX: Final = 5_000
SILENCE_MAX_S: Final = 10.0
_WAIT_S: Final = 0.05
_BACKOFF_INITIAL_S: Final = 0.1
_BACKOFF_MAX_S: Final = 2.0
_CLOSE_S: Final = 2.0
_Recoverable: Final = (KafkaError, OSError)


class Record(Protocol):
    """A record to send. `waits` asks that everything before it is acknowledged first."""

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

    A producer that failed, or was silent for `SILENCE_MAX_S`, is replaced, and what was not acknowledged
    is sent again as it was and in the same order. Only one thread may use it at a time.

    `acknowledged` is called once for each record, with partition and offset, on the producer's own thread.
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
        self._last_heard_at_s = 0.0
        self._backoff = Backoff(_BACKOFF_INITIAL_S, _BACKOFF_MAX_S)

    def send(self, record: RecordT) -> bool:
        """Send a record, and wait while too many are under way; tell whether it was taken before the stop."""
        room = 0 if record.waits else IN_FLIGHT_MAX - 1
        while not self._stop.is_set() and len(self._in_flight) > room:
            self._wait()
        if self._stop.is_set():
            return False
        with self._changed:
            if not self._in_flight:
                self._last_heard_at_s = time.monotonic()
            self._in_flight[self._next_number] = record
        self._unsent.append(self._next_number)
        self._next_number += 1
        self.maintain()
        return True

    def maintain(self) -> None:
        """Replace a failed producer and send what is unsent; returns at once where all is well."""
        try:
            self._check()
            while self._unsent:
                self._hand_over(self._unsent[0])
                self._unsent.popleft()
        except _Recoverable as error:
            self._restart_producer(error)

    def wait_acknowledged(self, seconds: float) -> bool:
        """Wait until everything is acknowledged, or so many seconds; tell whether it is."""
        deadline_s = time.monotonic() + seconds
        while self._in_flight and time.monotonic() < deadline_s:
            self._wait()
        return not self._in_flight

    @property
    def in_flight(self) -> list[RecordT]:
        """What is not acknowledged: the broker may have it or not."""
        with self._changed:
            return list(self._in_flight.values())

    def close(self) -> None:
        """Close the producer; what is under way stays there."""
        self._drop_producer()

    def _wait(self) -> None:
        self.maintain()
        with self._changed:
            if self._in_flight:
                self._changed.wait(_WAIT_S)

    def _check(self) -> None:
        with self._changed:
            failure = self._failure
            waits = self._producer is not None and bool(self._in_flight)
            silent = waits and time.monotonic() - self._last_heard_at_s > SILENCE_MAX_S
        if failure is not None:
            raise failure
        if silent:
            raise TimeoutError(f"nothing was acknowledged for {SILENCE_MAX_S:.0f} s")

    def _hand_over(self, number: int) -> None:
        record = self._in_flight.get(number)
        if record is None:
            return  # acknowledged to the producer before this one, after all
        if self._producer is None:
            self._producer = self._producer_factory()
            self._last_heard_at_s = time.monotonic()
        future = self._producer.send(self._topic, key=record.key, value=record.value, headers=record.headers)
        future.add_callback(partial(self._acknowledged, number))
        future.add_errback(partial(self._failed, self._generation))

    def _acknowledged(self, number: int, metadata: Any) -> None:
        with self._changed:
            record = self._in_flight.pop(number, None)
            if record is None:
                return  # the copy sent again was acknowledged first
            self._on_acknowledged(record, metadata.partition, metadata.offset)
            self._last_heard_at_s = time.monotonic()
            self._backoff.reset()
            self._changed.notify_all()

    def _failed(self, generation: int, error: BaseException) -> None:
        with self._changed:
            if generation == self._generation and self._failure is None:
                self._failure = error if isinstance(error, _Recoverable) else KafkaError(str(error))
                self._changed.notify_all()

    def _restart_producer(self, error: BaseException) -> None:
        log.warning("the producer failed: %s; %d records are sent again", error, len(self._in_flight))
        self._drop_producer()
        with self._changed:
            self._failure = None
            self._unsent = deque(self._in_flight)
        if self._stop.is_set():
            time.sleep(_BACKOFF_INITIAL_S)  # the drain is short: keep trying
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
            # `close` would first wait for records that nobody is going to acknowledge, and then fail.
            sender = getattr(producer, "_sender", None)
            if sender is not None:
                sender.force_close()
        with suppress(*_Recoverable):
            producer.close(timeout=_CLOSE_S)
