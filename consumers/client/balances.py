"""Every organisation's balance in memory, from the compacted topic: whether a run may start, with no call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError

BALANCES_TOPIC: Final = "credit-ledger.balances.v1"
_POLL_MS: Final = 200
_BACKOFF_FIRST_S: Final = 0.2
_BACKOFF_MOST_S: Final = 5.0

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
    topic made anew, as by a broker that lost its disk, is read from its beginning by a new `Balances`.

    Args:
        consumer_factory: returns a new `kafka.KafkaConsumer` without a group or a topic, with
            `auto_offset_reset="earliest"`. It is called again after a failure.
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
        backoff_s = _BACKOFF_FIRST_S
        while not self._stop.is_set():
            consumer = None
            try:
                consumer = self._consumer_factory()
                partitions = consumer.partitions_for_topic(self._topic)
                if partitions:
                    self._read(consumer, [TopicPartition(self._topic, number) for number in partitions])
                    backoff_s = _BACKOFF_FIRST_S
            except (KafkaError, OSError) as error:
                log.warning("balances are not followed, next try in %.1f s: %s", backoff_s, error)
            finally:
                if consumer is not None:
                    with suppress(KafkaError, OSError):
                        consumer.close()
            self._stop.wait(backoff_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_MOST_S)

    def _read(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends: dict[TopicPartition, int] = consumer.end_offsets(partitions)
        while not self._stop.is_set():
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
