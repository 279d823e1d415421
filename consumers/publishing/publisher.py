"""Tells Kafka what the ledger knows: tails the log and publishes, at least once and in order.

One publisher is at work at a time: it holds a lock of its database session, and others stand by. Should two
be at work after all (a process that slept through the end of its session), the positions' compare-and-set
lets one of them on; see `_rewind_unconfirmed` for what the other may have done.
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

from consumers.publishing import checkpoints as publishing_checkpoints
from consumers.publishing.checkpoints import Checkpoint
from consumers.publishing.feeds import Feed
from consumers.publishing.ordered_producer import OrderedProducer
from domain.shared.backoff import Backoff
from domain.shared.errors import CheckpointConflict
from domain.shared.event_store import EVENTS_CHANNEL
from projections.connection import Connection
from projections.engine.event_log import log_end, wait_for_events
from projections.engine.leader_election import wait_for_leadership

log = logging.getLogger(__name__)

POLL_S: Final = 0.5
POLL_SOON_S: Final = 0.01
TOPICS_CHECKED_EVERY_S: Final = 5.0
BACKOFF_INITIAL_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0

_LOCK: Final = 0x5055_424C_4953_4845  # "PUBLISHE": one publisher per database
_TAKE_LOCK: Final = f"SELECT pg_try_advisory_lock({_LOCK})"
Recoverable = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,  # a standby after a failover
    CheckpointConflict,
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


class FeedStatus(msgspec.Struct, frozen=True):
    """How far a topic is in the log, and how many positions the log is ahead of it."""

    position: int
    lag: int


class Publisher:
    """Publishes to its outlets' topics in the calling thread. Numbers may be read from any other.

    The connection must reach PostgreSQL itself, not a pool that shares sessions: it listens and holds a lock.
    """

    def __init__(
        self, conninfo: str, broker: TopicBroker, connect: Callable[[], Any], feeds: Sequence[Feed]
    ) -> None:
        self.records: dict[str, int] = {feed.topic: 0 for feed in feeds}
        self.statuses: dict[str, FeedStatus] = {}
        self.failures = 0
        self.too_large = 0
        self.is_leader = False
        self._conninfo = conninfo
        self._broker = broker
        self._sender = OrderedProducer(connect)
        self._feeds = feeds
        self._topic_ids: dict[str, str] = {}
        self._topics_due = 0.0
        self._unconfirmed: dict[str, int] = {}
        self._backoff = Backoff(BACKOFF_INITIAL_S, BACKOFF_MAX_S)

    def run(self, stop: Event) -> None:
        """Publish until told to stop; connect again whenever the database or the broker is lost.

        Raises:
            UnknownEventType: the log was written by a newer version of the ledger.
        """
        while not stop.is_set():
            try:
                with closing(psycopg.connect(self._conninfo, autocommit=True)) as connection:
                    self._rewind_unconfirmed(connection)
                    self.is_leader = wait_for_leadership(connection, _TAKE_LOCK, stop, "publisher")
                    if self.is_leader:
                        self._follow(connection, stop)
            except Recoverable as error:
                self._recover(error, stop)
            finally:
                self.is_leader = False
        self._sender.close()

    def _follow(self, connection: Connection, stop: Event) -> None:
        connection.execute(f"LISTEN {EVENTS_CHANNEL}")
        self._broker.ensure_published_topics()
        self._topics_due = 0.0
        soon_s = POLL_SOON_S
        while not stop.is_set():
            self._check_topics()
            moved = [self._advance(connection, feed, stop) for feed in self._feeds]
            self._backoff.reset()
            if any(moved):
                soon_s = POLL_SOON_S
            elif any(status.lag for status in self.statuses.values()):
                # Nobody tells when the projection has caught up.
                wait_for_events(connection, soon_s)
                soon_s = min(2 * soon_s, POLL_S)
            else:
                wait_for_events(connection, POLL_S)

    def _check_topics(self) -> None:
        """Look whether the topics are still those that the positions belong to."""
        now = time.monotonic()
        if now < self._topics_due:
            return
        self._topic_ids = {feed.topic: self._broker.topic_id(feed.topic) for feed in self._feeds}
        self._topics_due = now + TOPICS_CHECKED_EVERY_S

    def _advance(self, connection: Connection, feed: Feed, stop: Event) -> bool:
        """Publish the next portion of an outlet, if there is one, and move its position past it."""
        topic = feed.topic
        published = self._published(connection, topic)
        up_to = feed.end_position(connection)
        moves = published.position < up_to
        if moves:
            batch = feed.read_after(connection, published.position, up_to)
            if feed.is_compacted:
                self._unconfirmed[topic] = published.position
            for messages in batch.batches:
                if stop.is_set():
                    return False
                self.records[topic] += self._sender.send(topic, feed.content_type, messages)
            published = publishing_checkpoints.advance(connection, topic, published, batch.position)
            self._unconfirmed.pop(topic, None)
        lag = max(0, log_end(connection) - published.position)
        self.statuses[topic] = FeedStatus(published.position, lag)
        return moves

    def _published(self, connection: Connection, topic: str) -> Checkpoint:
        published = publishing_checkpoints.load(connection, topic)
        topic_id = self._topic_ids[topic]
        if published is None or published.topic_id != topic_id:
            if published is not None:
                log.warning("%s was made anew: everything is published again", topic)
            published = publishing_checkpoints.start(connection, topic, topic_id, published)
        return published

    def _rewind_unconfirmed(self, connection: Connection) -> None:
        """Have published again what we may have sent out of turn.

        A state read before our session ended may have reached a compacted topic after a newer one that the
        next publisher sent. Whoever is at work now says those again, whatever they are by then.
        """
        for topic, position in list(self._unconfirmed.items()):
            publishing_checkpoints.rewind(connection, topic, position)
            del self._unconfirmed[topic]

    def _recover(self, error: BaseException, stop: Event) -> None:
        self.failures += 1
        if isinstance(error, TooLarge):
            self.too_large += 1
            log.error("a topic takes less than its messages have: set its max.message.bytes to 1 MB or more")
        log.warning("publisher interrupted, goes on in %.1f s: %s", self._backoff.next_s, error)
        self._sender.close()
        stop.wait(self._backoff.advance())
