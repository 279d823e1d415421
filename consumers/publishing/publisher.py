"""The publisher: follows the log and publishes to Kafka, at least once and in order.

One publisher is the leader: it holds an advisory lock of its database session, and the others wait. If two
publishers are active by mistake (a paused process whose session has ended), the compare-and-set of the
checkpoints lets only one of them continue. `_rewind_unconfirmed` repairs what the other one may have sent.
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
    """The administration of topics that the publisher needs.

    Raises (all methods):
        KafkaError: no broker responds, or the broker refuses the request.
    """

    def ensure_published_topics(self) -> None:
        """Create missing topics, if the settings allow it."""

    def topic_id(self, topic: str) -> str:
        """Return the id of the topic's current incarnation."""


class FeedStatus(msgspec.Struct, frozen=True):
    """The published log position of a topic, and its lag in log positions."""

    position: int
    lag: int


class Publisher:
    """Publishes the feeds in the calling thread. Other threads may read the public attributes.

    The connection must reach PostgreSQL directly, not through a pooler that shares sessions: it uses LISTEN
    and an advisory lock.
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
        """Publish until `stop` is set. Reconnects when the connection to the database or the broker is lost.

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
        poll_s = POLL_SOON_S
        while not stop.is_set():
            self._check_topics()
            advanced = [self._advance(connection, feed, stop) for feed in self._feeds]
            self._backoff.reset()
            if any(advanced):
                poll_s = POLL_SOON_S
            elif any(status.lag for status in self.statuses.values()):
                # The projection sends no notification when it has caught up.
                wait_for_events(connection, poll_s)
                poll_s = min(2 * poll_s, POLL_S)
            else:
                wait_for_events(connection, POLL_S)

    def _check_topics(self) -> None:
        """Read the current ids of the topics, every few seconds."""
        now = time.monotonic()
        if now < self._topics_due:
            return
        self._topic_ids = {feed.topic: self._broker.topic_id(feed.topic) for feed in self._feeds}
        self._topics_due = now + TOPICS_CHECKED_EVERY_S

    def _advance(self, connection: Connection, feed: Feed, stop: Event) -> bool:
        """Publish the next batch of a feed, if there is one, and advance its checkpoint.

        Return whether there was one.
        """
        topic = feed.topic
        published = self._published(connection, topic)
        up_to = feed.end_position(connection)
        has_new = published.position < up_to
        if has_new:
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
        return has_new

    def _published(self, connection: Connection, topic: str) -> Checkpoint:
        published = publishing_checkpoints.load(connection, topic)
        topic_id = self._topic_ids[topic]
        if published is None or published.topic_id != topic_id:
            if published is not None:
                log.info("%s was recreated: publishing all events again, nothing is lost", topic)
            published = publishing_checkpoints.start(connection, topic, topic_id, published)
        return published

    def _rewind_unconfirmed(self, connection: Connection) -> None:
        """Rewind the checkpoints of topics to which we may have sent records out of order.

        A balance that we read before our session ended may have reached a compacted topic after a newer
        balance of the next leader. After the rewind, the current leader publishes the latest balances again.
        """
        for topic, position in list(self._unconfirmed.items()):
            publishing_checkpoints.rewind(connection, topic, position)
            del self._unconfirmed[topic]

    def _recover(self, error: BaseException, stop: Event) -> None:
        self.failures += 1
        if isinstance(error, TooLarge):
            self.too_large += 1
            log.error(
                "a message is too large for its topic: set max.message.bytes of the topic to 1 MB or more"
            )
        log.warning("publisher interrupted, resuming in %.1f s: %s", self._backoff.next_s, error)
        self._sender.close()
        stop.wait(self._backoff.advance())
