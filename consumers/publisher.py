"""Tells Kafka what the ledger knows: tails the log and publishes, at least once and in order.

One publisher is at work at a time: it holds a lock of its database session, and others stand by. Should two
be at work after all (a process that slept through the end of its session), the positions' compare-and-set
lets one of them on; see `_hand_back` for what the other may have done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from threading import Event
from typing import Any, Final, Protocol

import msgspec
import psycopg
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from psycopg import errors

from consumers import publisher_positions
from consumers.outlets import Outlet
from consumers.publisher_positions import Published
from consumers.sending import WaveSender
from domain.errors import PositionMoved
from projections.leading import lead
from projections.log import CHANNEL, log_end, wait_for_entries

log = logging.getLogger(__name__)

POLL_S: Final = 0.5
POLL_SOON_S: Final = 0.01
TOPICS_CHECKED_EVERY_S: Final = 5.0
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MOST_S: Final = 5.0

_LOCK: Final = 0x5055_424C_4953_4845  # "PUBLISHE": one publisher per database
_TAKE_LOCK: Final = f"SELECT pg_try_advisory_lock({_LOCK})"

Connection = psycopg.Connection[Any]
Recoverable = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,  # a standby after a failover
    PositionMoved,
    KafkaError,
    OSError,
)


TooLarge = (MessageSizeTooLargeError, RecordListTooLargeError)


class TopicBroker(Protocol):
    """What the publisher needs of Kafka beside a producer.

    Raises (all methods):
        KafkaError: no broker answers, or it refuses.
    """

    def ensure_published_topics(self) -> None:
        """Create the topics that are missing, unless the settings leave that to others."""

    def topic_id(self, topic: str) -> str:
        """Return the id of the topic's present incarnation."""


class Standing(msgspec.Struct, frozen=True):
    """How far a topic is in the log, and how many positions the log is ahead of it."""

    position: int
    lag: int


class Publisher:
    """Publishes to its outlets' topics in the calling thread. Numbers may be read from any other.

    The connection must reach PostgreSQL itself, not a pool that shares sessions: it listens and holds a lock.
    """

    def __init__(
        self, conninfo: str, broker: TopicBroker, connect: Callable[[], Any], outlets: Sequence[Outlet]
    ) -> None:
        self.records: dict[str, int] = {outlet.topic: 0 for outlet in outlets}
        self.standings: dict[str, Standing] = {}
        self.failures = 0
        self.too_large = 0
        self.leads = False
        self._conninfo = conninfo
        self._broker = broker
        self._sender = WaveSender(connect)
        self._outlets = outlets
        self._topic_ids: dict[str, str] = {}
        self._topics_due = 0.0
        self._unproven: dict[str, int] = {}
        self._backoff_s = BACKOFF_FIRST_S

    def run(self, stop: Event) -> None:
        """Publish until told to stop; connect again whenever the database or the broker is lost.

        Raises:
            UnknownEventType: the log was written by a newer version of the ledger.
        """
        while not stop.is_set():
            try:
                with closing(psycopg.connect(self._conninfo, autocommit=True)) as connection:
                    self._hand_back(connection)
                    self.leads = lead(connection, _TAKE_LOCK, stop, "publisher")
                    if self.leads:
                        self._follow(connection, stop)
            except Recoverable as error:
                self._recover(error, stop)
            finally:
                self.leads = False
        self._sender.close()

    def _follow(self, connection: Connection, stop: Event) -> None:
        connection.execute(f"LISTEN {CHANNEL}")
        self._broker.ensure_published_topics()
        self._topics_due = 0.0
        soon_s = POLL_SOON_S
        while not stop.is_set():
            self._check_topics()
            moved = [self._advance(connection, outlet, stop) for outlet in self._outlets]
            self._backoff_s = BACKOFF_FIRST_S
            if any(moved):
                soon_s = POLL_SOON_S
            elif any(standing.lag for standing in self.standings.values()):
                # Nobody tells when the projection has caught up.
                wait_for_entries(connection, soon_s)
                soon_s = min(2 * soon_s, POLL_S)
            else:
                wait_for_entries(connection, POLL_S)

    def _check_topics(self) -> None:
        """Look whether the topics are still those that the positions belong to."""
        now = time.monotonic()
        if now < self._topics_due:
            return
        self._topic_ids = {outlet.topic: self._broker.topic_id(outlet.topic) for outlet in self._outlets}
        self._topics_due = now + TOPICS_CHECKED_EVERY_S

    def _advance(self, connection: Connection, outlet: Outlet, stop: Event) -> bool:
        """Publish the next portion of an outlet, if there is one, and move its position past it."""
        topic = outlet.topic
        published = self._published(connection, topic)
        up_to = outlet.end(connection)
        moves = published.position < up_to
        if moves:
            portion = outlet.after(connection, published.position, up_to)
            if outlet.keeps_latest:
                self._unproven[topic] = published.position
            for messages in portion.batches:
                if stop.is_set():
                    return False
                self.records[topic] += self._sender.send(topic, outlet.content_type, messages)
            published = publisher_positions.move(connection, topic, published, portion.position)
            self._unproven.pop(topic, None)
        lag = max(0, log_end(connection) - published.position)
        self.standings[topic] = Standing(published.position, lag)
        return moves

    def _published(self, connection: Connection, topic: str) -> Published:
        published = publisher_positions.load(connection, topic)
        topic_id = self._topic_ids[topic]
        if published is None or published.topic_id != topic_id:
            if published is not None:
                log.warning("%s was made anew: everything is published again", topic)
            published = publisher_positions.start(connection, topic, topic_id, published)
        return published

    def _hand_back(self, connection: Connection) -> None:
        """Have published again what we may have sent out of turn.

        A state read before our session ended may have reached a compacted topic after a newer one that the
        next publisher sent. Whoever is at work now says those again, whatever they are by then.
        """
        for topic, position in list(self._unproven.items()):
            publisher_positions.move_back(connection, topic, position)
            del self._unproven[topic]

    def _recover(self, error: BaseException, stop: Event) -> None:
        self.failures += 1
        if isinstance(error, TooLarge):
            self.too_large += 1
            log.error("a topic takes less than its messages have: set its max.message.bytes to 1 MB or more")
        log.warning("publisher interrupted, goes on in %.1f s: %s", self._backoff_s, error)
        self._sender.close()
        stop.wait(self._backoff_s)
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MOST_S)
