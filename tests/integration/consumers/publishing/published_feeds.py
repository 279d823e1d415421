"""Runs the publisher in a thread, as a process would, and reads its topics."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
from kafka.admin import KafkaAdminClient
from psycopg.conninfo import make_conninfo

from consumers.publishing.feeds import BalanceFeed, EventFeed
from consumers.publishing.publisher import Publisher
from infra.kafka.connections import Kafka
from infra.service.composition import publisher
from infra.settings import Settings
from projections.engine.projector import Projector
from projections.registry import ALL_PROJECTIONS
from tests.auditor.topic import read_topic
from tests.integration.consumers.service import InThread

PARTITIONS = 4


def publishing_settings(broker: str, topic_name: Callable[[str], str]) -> Settings:
    return Settings(
        kafka_bootstrap_servers=broker,
        usage_topic=topic_name("usage"),
        usage_partitions=PARTITIONS,
        events_topic=topic_name("events"),
        balances_topic=topic_name("balances"),
    )


class PublisherThread(InThread):
    """A publisher in a thread."""

    def __init__(
        self,
        settings: Settings,
        database: str,
        *,
        name: str = "publisher",
        prepare: Callable[[Publisher], None] = lambda _: None,
    ) -> None:
        super().__init__(name)
        self._settings = settings
        self._database = make_conninfo(database, application_name=name)
        self._prepare = prepare
        self.publisher: Publisher

    def work(self) -> None:
        with publisher(self._settings, self._database) as telling:
            self.publisher = telling
            self._prepare(telling)
            self._ready.set()
            telling.run(self._stop)


class PublishedFeeds:
    """Compares the ledger with the contents of the topics."""

    def __init__(self, settings: Settings, connection: psycopg.Connection[Any], database: str) -> None:
        self.settings = settings
        self._connection = connection
        self._database = database

    def project(self) -> None:
        """Advance the projections to the end of the log."""
        with Projector(self._database, ALL_PROJECTIONS) as projector:
            projector.catch_up()

    def log(self) -> list[tuple[str, int]]:
        """Return id and position of every event, in the order of the log."""
        return self._connection.execute(
            "SELECT originator_id || '/' || originator_version, notification_id"
            " FROM ledger.events ORDER BY notification_id"
        ).fetchall()

    def log_end(self) -> int:
        return max((position for _, position in self.log()), default=0)

    def position(self, topic: str) -> int | None:
        row = self._connection.execute(
            'SELECT "position" FROM ledger.publisher_positions WHERE topic = %s', (topic,)
        ).fetchone()
        return None if row is None else int(row[0])

    def topic_id(self, topic: str) -> str:
        row = self._connection.execute(
            "SELECT topic_id FROM ledger.publisher_positions WHERE topic = %s", (topic,)
        ).fetchone()
        return "" if row is None else str(row[0])

    def published(self) -> bool:
        """Whether both topics contain the log up to its end."""
        end = self.log_end()
        settings = self.settings
        return {self.position(settings.events_topic), self.position(settings.balances_topic)} == {end}

    def events(self) -> list[dict[str, Any]]:
        """Return every event on the topic, by partition and offset; keys and headers are checked."""
        return [message for _, _, message in self._messages(self.settings.events_topic)]

    def balances(self) -> dict[str, list[dict[str, Any]]]:
        """Return every record of the balances topic by organisation, oldest first."""
        states: dict[str, list[dict[str, Any]]] = {}
        for _, key, message in self._messages(self.settings.balances_topic):
            assert key == message["organisation_id"]
            states.setdefault(key, []).append(message)
        return states

    def projected(self) -> dict[str, dict[str, Any]]:
        """Return the expected latest record of every organisation."""
        return {
            name: {
                "organisation_id": name,
                "available": balance - on_hold,
                "balance": balance,
                "on_hold": on_hold,
                "processing": "allowed" if balance - on_hold > 0 else "paused",
                "position": position,
            }
            for name, balance, on_hold, position in self._connection.execute(
                'SELECT organisation_id, balance, on_hold, "position" FROM projections.balances'
            )
        }

    def assert_published(self, *, repeats: bool = False) -> None:
        """Check that every event is published in order, and that the latest balance of every organisation is
        correct.
        """
        messages = self.events()
        first: dict[str, int] = {}
        versions: dict[str, int] = {}
        for message in messages:
            if message["id"] not in first:
                first[message["id"]] = message["data"]["position"]
                history, version = message["id"].partition("/")[0], message["data"]["version"]
                assert version == versions.get(history, 0) + 1, f"a gap before {message}"
                versions[history] = version
        assert first == dict(self.log())
        assert repeats or len(messages) == len(first)
        assert {name: states[-1] for name, states in self.balances().items()} == self.projected()

    def _messages(self, topic: str) -> list[tuple[int, str, dict[str, Any]]]:
        is_event = topic == self.settings.events_topic
        content_type = b"application/cloudevents+json" if is_event else b"application/json"
        messages = []
        for record in read_topic(str(self.settings.kafka_bootstrap_servers), topic):
            assert record.headers == (("content-type", content_type),)
            assert record.key is not None
            assert record.value is not None
            message = json.loads(record.value)
            if is_event:
                assert record.key.decode() == message["subject"]
            messages.append((record.partition, record.key.decode(), message))
        return messages


def small_batches(size: int) -> Callable[[Publisher], None]:
    """Make a publisher work in batches of a size."""

    def prepare(telling: Publisher) -> None:
        for feed in telling._feeds:
            assert isinstance(feed, EventFeed | BalanceFeed)
            feed._batch_size = size

    return prepare


def recreate_topics(settings: Settings) -> None:
    """Delete the publisher's topics, and create them again."""
    with KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers) as admin:
        admin.delete_topics([settings.events_topic, settings.balances_topic])
    kafka = Kafka(settings)
    try:
        kafka.ensure_published_topics()
    finally:
        kafka.close()


class Crash(BaseException):
    """The process ends here."""
