"""All balances in memory, read from the compacted topic: decides without a call whether a run may start."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from threading import Event, Thread
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError

from domain.shared.backoff import Backoff

BALANCES_TOPIC: Final = "credit-ledger.balances.v1"
_POLL_MS: Final = 200
_BACKOFF_INITIAL_S: Final = 0.2
_BACKOFF_MAX_S: Final = 5.0
_TOPIC_CHECKED_EVERY_S: Final = 5.0

log = logging.getLogger(__name__)


class Balance(msgspec.Struct, frozen=True):
    """The credits of an organisation. Processing is paused while no credits are available."""

    available: int
    balance: int
    on_hold: int
    position: int


_decode: Final = msgspec.json.Decoder(Balance).decode


class Balances:
    """Follows the topic in its own thread. All methods are thread-safe.

    Balances stay available while the broker is unavailable. Records may repeat; an older record never
    replaces a newer one. If the topic is recreated, for example after the broker lost its disk, it is read
    again from its beginning within seconds.

    Args:
        consumer_factory: returns a new `kafka.KafkaConsumer` without a group or a topic, with
            `auto_offset_reset="earliest"`. It is called again after a failure. The configuration of the
            consumer is also used to look up the topic's id.
    """

    def __init__(self, consumer_factory: Callable[[], Any], *, topic: str = BALANCES_TOPIC) -> None:
        self._consumer_factory = consumer_factory
        self._topic = topic
        self._balances: dict[str, Balance] = {}
        self._loaded = Event()
        self._stop = Event()
        self._thread = Thread(target=self._follow, name="balances", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def allowed(self, organisation_id: str) -> bool:
        """Return whether a run may start, because credits are available.

        False for an unknown organisation.
        """
        balance = self._balances.get(organisation_id)
        return balance is not None and balance.available > 0

    def balance(self, organisation_id: str) -> Balance | None:
        """Return the latest known balance of an organisation."""
        return self._balances.get(organisation_id)

    @property
    def position(self) -> int:
        """The highest log position of all balances; 0 without balances. It grows with new ledger events."""
        return max((balance.position for balance in list(self._balances.values())), default=0)

    def wait_until_loaded(self, within_s: float) -> bool:
        """Wait until all records that the topic had at the start are read. Return whether they are."""
        return self._loaded.wait(within_s)

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        backoff = Backoff(_BACKOFF_INITIAL_S, _BACKOFF_MAX_S)
        while not self._stop.is_set():
            consumer = None
            try:
                consumer = self._consumer_factory()
                with closing(_TopicWatch(consumer.config, self._topic)) as watch:
                    partitions = (
                        consumer.partitions_for_topic(self._topic) if watch.remember_topic() else None
                    )
                    if partitions:
                        topic_partitions = [TopicPartition(self._topic, number) for number in partitions]
                        self._read(consumer, topic_partitions, watch)
                        backoff.reset()
            except (KafkaError, OSError) as error:
                log.warning("reading balances failed, retrying in %.1f s: %s", backoff.next_s, error)
            finally:
                if consumer is not None:
                    with suppress(KafkaError, OSError):
                        consumer.close()
            self._stop.wait(backoff.advance())

    def _read(self, consumer: Any, partitions: list[TopicPartition], watch: _TopicWatch) -> None:
        """Read records until `close` is called, or until the topic is recreated."""
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends: dict[TopicPartition, int] = consumer.end_offsets(partitions)
        while not self._stop.is_set() and not watch.has_changed():
            for records in consumer.poll(_POLL_MS).values():
                for record in records:
                    self._apply(record)
            if not self._loaded.is_set() and all(consumer.position(p) >= end for p, end in ends.items()):
                self._loaded.set()

    def _apply(self, record: Any) -> None:
        if record.key is None:
            return
        organisation_id = record.key.decode(errors="replace")
        if not record.value:
            self._balances.pop(organisation_id, None)
            return
        try:
            balance = _decode(record.value)
        except msgspec.DecodeError as error:
            log.warning("cannot decode the balance of %r: %s", organisation_id, error)
            return
        known = self._balances.get(organisation_id)
        if known is None or known.position <= balance.position:
            self._balances[organisation_id] = balance


class _TopicWatch:
    """Detects that a topic was deleted and recreated under the same name."""

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        known = KafkaAdminClient.DEFAULT_CONFIG
        self._admin = KafkaAdminClient(**{name: value for name, value in config.items() if name in known})
        self._topic = topic
        self._topic_id: Any = None
        self._due = 0.0

    def close(self) -> None:
        """Close the connection."""
        self._admin.close()

    def remember_topic(self) -> bool:
        """Remember the id of the current topic. Return whether the topic exists.

        Raises:
            KafkaError, OSError: the broker does not respond.
        """
        self._topic_id = self._current_topic_id()
        return self._topic_id is not None

    def has_changed(self) -> bool:
        """Return whether the topic was recreated.

        Checks every few seconds; False while the broker is unavailable.
        """
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + _TOPIC_CHECKED_EVERY_S
        try:
            current_id = self._current_topic_id()
        except (KafkaError, OSError):
            return False
        if current_id is None or current_id == self._topic_id:
            return False
        log.warning("%s was recreated, reading it from its beginning", self._topic)
        return True

    def _current_topic_id(self) -> Any:
        (description,) = self._admin.describe_topics([self._topic])
        return None if description["error_code"] else description["topic_id"]
