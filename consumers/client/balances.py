"""Every organisation's balance in memory, from the compacted topic: whether a run may start, with no call."""

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
    """What an organisation has. Processing is paused while nothing is available."""

    available: int
    balance: int
    on_hold: int
    position: int


_decode: Final = msgspec.json.Decoder(Balance).decode


class Balances:
    """Follows the topic in a thread of its own. Any thread may ask.

    What was read stays while the broker is away. Records may repeat; an older one never replaces a newer. A
    topic made anew, as by a broker that lost its disk, is noticed within seconds and read from its beginning.

    Args:
        consumer_factory: returns a new `kafka.KafkaConsumer` without a group or a topic, with
            `auto_offset_reset="earliest"`. It is called again after a failure. Its configuration is also used
            to ask for the topic's id.
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
        """Tell whether a run may start: something is available. False for who is not known (yet)."""
        balance = self._balances.get(organisation_id)
        return balance is not None and balance.available > 0

    def balance(self, organisation_id: str) -> Balance | None:
        """Return the latest known balance of an organisation."""
        return self._balances.get(organisation_id)

    @property
    def position(self) -> int:
        """The highest position of all balances: it grows with whatever the ledger records; 0 before any."""
        return max((balance.position for balance in list(self._balances.values())), default=0)

    def wait_until_loaded(self, within_s: float) -> bool:
        """Wait until all that stood in the topic at the start was read; tell whether it was."""
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
                        places = [TopicPartition(self._topic, number) for number in partitions]
                        self._read(consumer, places, watch)
                        backoff.reset()
            except (KafkaError, OSError) as error:
                log.warning("balances are not followed, next try in %.1f s: %s", backoff.next_s, error)
            finally:
                if consumer is not None:
                    with suppress(KafkaError, OSError):
                        consumer.close()
            self._stop.wait(backoff.advance())

    def _read(self, consumer: Any, partitions: list[TopicPartition], watch: _TopicWatch) -> None:
        """Follow until told to stop, or until the topic is another one."""
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends: dict[TopicPartition, int] = consumer.end_offsets(partitions)
        while not self._stop.is_set() and not watch.has_changed():
            for records in consumer.poll(_POLL_MS).values():
                for record in records:
                    self._take(record)
            if not self._loaded.is_set() and all(consumer.position(p) >= end for p, end in ends.items()):
                self._loaded.set()

    def _take(self, record: Any) -> None:
        if record.key is None:
            return
        organisation_id = record.key.decode(errors="replace")
        if not record.value:
            self._balances.pop(organisation_id, None)
            return
        try:
            balance = _decode(record.value)
        except msgspec.DecodeError as error:
            log.warning("a balance of %r cannot be read: %s", organisation_id, error)
            return
        known = self._balances.get(organisation_id)
        if known is None or known.position <= balance.position:
            self._balances[organisation_id] = balance


class _TopicWatch:
    """Tells whether a name still stands for the topic that it stood for."""

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        known = KafkaAdminClient.DEFAULT_CONFIG
        self._admin = KafkaAdminClient(**{name: value for name, value in config.items() if name in known})
        self._topic = topic
        self._topic_id: Any = None
        self._due = 0.0

    def close(self) -> None:
        """Disconnect."""
        self._admin.close()

    def remember_topic(self) -> bool:
        """Remember the topic there is; tell whether there is one.

        Raises:
            KafkaError, OSError: the broker does not answer.
        """
        self._topic_id = self._current_topic_id()
        return self._topic_id is not None

    def has_changed(self) -> bool:
        """Tell, looking every few seconds, whether there is another topic; False while nobody can tell."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + _TOPIC_CHECKED_EVERY_S
        try:
            present = self._current_topic_id()
        except (KafkaError, OSError):
            return False
        if present is None or present == self._topic_id:
            return False
        log.warning("%s was made anew: it is read from its beginning", self._topic)
        return True

    def _current_topic_id(self) -> Any:
        (description,) = self._admin.describe_topics([self._topic])
        return None if description["error_code"] else description["topic_id"]
