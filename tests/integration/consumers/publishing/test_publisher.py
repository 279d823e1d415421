"""The publisher, on a real broker and a real database: it publishes everything in order, whatever fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consumers.publishing import checkpoints as publishing_checkpoints
from consumers.publishing.publisher import Publisher
from domain.shared.errors import UnknownEventType
from infra.embedded.broker import EmbeddedBroker
from infra.service.telemetry import publisher_metrics
from infra.settings import Settings
from tests.integration.consumers.ingest_environment import IngestEnvironment
from tests.integration.consumers.publishing.published_feeds import (
    Crash,
    PublishedFeeds,
    PublisherThread,
    publishing_settings,
    recreate_topics,
    small_batches,
)
from tests.integration.consumers.service import wait_until

ORGANISATIONS = [f"org-{number}" for number in range(7)]


@pytest.fixture
def settings(broker: str, topic_name: Callable[[str], str]) -> Settings:
    return publishing_settings(broker, topic_name)


@pytest.fixture
def feeds(ingest_env: IngestEnvironment, settings: Settings) -> PublishedFeeds:
    return PublishedFeeds(settings, ingest_env.connection, ingest_env.service)


@pytest.fixture
def own_broker(servers_root: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(servers_root / "broker-of-one-test") as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.publishing.publisher.TOPICS_CHECKED_EVERY_S", 0.2)
    monkeypatch.setattr("consumers.publishing.publisher.BACKOFF_MAX_S", 0.3)


def add_grants(ingest_env: IngestEnvironment, feeds: PublishedFeeds, grants: int = 5) -> None:
    """Add grants to organisations in turn, opening each on first use, and project them."""
    if not feeds.projected():
        ingest_env.open(*ORGANISATIONS, trial_credits=0)
    for number in range(grants):
        for name in ORGANISATIONS:
            ingest_env.grant(name, number + 1)
    feeds.project()


def test_everything_is_published_once_and_in_order(
    ingest_env: IngestEnvironment, feeds: PublishedFeeds, settings: Settings
) -> None:
    ingest_env.open("nobody", trial_credits=0)
    add_grants(ingest_env, feeds)
    with PublisherThread(settings, ingest_env.service, prepare=small_batches(10)) as telling:
        wait_until(feeds.published)
        ingest_env.grant("org-3", 100)  # notified while it listens
        feeds.project()
        wait_until(feeds.published)
        wait_until(lambda: {each.lag for each in telling.publisher.statuses.values()} == {0})
    feeds.assert_published()
    assert telling.publisher.failures == 0
    assert telling.publisher.records[settings.events_topic] == len(feeds.log())
    assert feeds.balances()["nobody"][-1]["processing"] == "paused"
    states = feeds.balances()["org-3"]
    assert (states[-1]["available"], states[-1]["processing"]) == (115, "allowed")
    assert [state["position"] for state in states] == sorted(state["position"] for state in states)

    with PublisherThread(settings, ingest_env.service) as again:
        wait_until(lambda: len(again.publisher.statuses) == 2)
        assert set(again.publisher.records.values()) == {0}


def test_a_balance_waits_for_the_projection_and_an_event_does_not(
    ingest_env: IngestEnvironment, feeds: PublishedFeeds, settings: Settings
) -> None:
    ingest_env.open("org-1")
    with PublisherThread(settings, ingest_env.service) as telling:
        wait_until(lambda: feeds.position(settings.events_topic) == feeds.log_end())
        wait_until(lambda: settings.balances_topic in telling.publisher.statuses)
        assert telling.publisher.statuses[settings.balances_topic].lag == feeds.log_end()
        assert telling.publisher.records[settings.balances_topic] == 0
        feeds.project()
        wait_until(feeds.published)
    feeds.assert_published()


def test_holds_are_not_available(
    ingest_env: IngestEnvironment, feeds: PublishedFeeds, settings: Settings
) -> None:
    ingest_env.open("org-1", trial_credits=10)
    feeds.project()
    ingest_env.connection.execute("UPDATE projections.balances SET on_hold = 10")
    with PublisherThread(settings, ingest_env.service):
        wait_until(feeds.published)
    ((state,),) = feeds.balances().values()
    assert (state["available"], state["balance"], state["on_hold"]) == (0, 10, 10)
    assert state["processing"] == "paused"


def test_a_topic_with_too_small_messages_is_logged_until_it_is_fixed(
    ingest_env: IngestEnvironment, feeds: PublishedFeeds, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    takes = 200

    def refuse_more(telling: Publisher) -> None:
        connect = telling._sender._connect

        def connect_to_less() -> Any:
            producer = connect()
            producer.config["max_request_size"] = takes
            return producer

        telling._sender._connect = connect_to_less

    add_grants(ingest_env, feeds)
    with PublisherThread(settings, ingest_env.service, prepare=refuse_more) as telling:
        wait_until(lambda: telling.publisher.too_large > 1)
        assert feeds.events() == []
        takes = 1_000_000
        wait_until(feeds.published)
    feeds.assert_published()
    assert "set max.message.bytes" in caplog.text


# ------------------------------------------------------------------- failures after the acknowledgement


def failing_once(monkeypatch: pytest.MonkeyPatch, fail: Callable[[], object], topic: str) -> None:
    """Make one step fail, after the broker accepted a second batch and before the position moves."""
    advance = publishing_checkpoints.advance
    moves: list[str] = []

    def failing(connection: Any, of: str, seen: Any, to: int) -> Any:
        moves.append(of)
        if of == topic and moves.count(topic) == 2:
            fail()
        return advance(connection, of, seen, to)

    monkeypatch.setattr(publishing_checkpoints, "advance", failing)


@pytest.mark.parametrize("topic", ["events_topic", "balances_topic"])
def test_a_database_lost_after_the_broker_took_a_batch(
    ingest_env: IngestEnvironment,
    feeds: PublishedFeeds,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    topic: str,
) -> None:
    add_grants(ingest_env, feeds)
    ended: list[int] = []
    failing_once(
        monkeypatch, lambda: ended.append(ingest_env.terminate("publisher")), getattr(settings, topic)
    )
    with PublisherThread(settings, ingest_env.service, prepare=small_batches(9)) as telling:
        wait_until(feeds.published)
        add_grants(ingest_env, feeds)
        wait_until(feeds.published)
        assert telling.publisher.failures == 1
    assert ended == [1]
    feeds.assert_published(repeats=True)
    if topic == "events_topic":
        assert len(feeds.events()) == len(feeds.log()) + 9


def test_a_crash_between_the_acknowledgement_and_the_position(
    ingest_env: IngestEnvironment, feeds: PublishedFeeds, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> None:
        raise Crash

    add_grants(ingest_env, feeds)
    failing_once(monkeypatch, crash, settings.events_topic)
    telling = PublisherThread(settings, ingest_env.service, prepare=small_batches(9))
    with pytest.raises(Crash), telling:
        telling._thread.join()
    assert feeds.position(settings.events_topic) == feeds.log()[8][1]
    with PublisherThread(settings, ingest_env.service):
        wait_until(feeds.published)
    feeds.assert_published(repeats=True)
    assert len(feeds.events()) == len(feeds.log()) + 9


@pytest.mark.parametrize("running", [True, False], ids=["while running", "while stopped"])
def test_everything_is_published_again_to_a_broker_without_data(
    ingest_env: IngestEnvironment, own_broker: EmbeddedBroker, topic_name: Callable[[str], str], running: bool
) -> None:
    settings = publishing_settings(own_broker.address, topic_name)
    feeds = PublishedFeeds(settings, ingest_env.connection, ingest_env.service)
    add_grants(ingest_env, feeds)

    def wait_for_all_again() -> None:
        wait_until(lambda: feeds.topic_id(settings.events_topic) not in ("", first_id))
        wait_until(feeds.published)

    with PublisherThread(settings, ingest_env.service):
        wait_until(feeds.published)
        first_id = feeds.topic_id(settings.events_topic)
        if running:
            restart(own_broker, ingest_env, feeds)
            wait_for_all_again()
    if not running:
        restart(own_broker, ingest_env, feeds)
        with PublisherThread(settings, ingest_env.service):
            wait_for_all_again()
    feeds.assert_published(repeats=running)


def restart(broker: EmbeddedBroker, ingest_env: IngestEnvironment, feeds: PublishedFeeds) -> None:
    """Restart a broker, which loses its data, while the ledger continues."""
    broker.stop()
    ingest_env.grant("org-1")
    feeds.project()
    broker.start()


def test_everything_is_published_again_to_recreated_topics(
    ingest_env: IngestEnvironment, feeds: PublishedFeeds, settings: Settings
) -> None:
    add_grants(ingest_env, feeds)
    with PublisherThread(settings, ingest_env.service):
        wait_until(feeds.published)
        seen = {feeds.topic_id(settings.events_topic), feeds.topic_id(settings.balances_topic)}
        recreate_topics(settings)
        wait_until(lambda: feeds.topic_id(settings.events_topic) not in seen)
        wait_until(lambda: feeds.topic_id(settings.balances_topic) not in seen)
        wait_until(feeds.published)
    feeds.assert_published(repeats=True)


def test_it_waits_for_a_broker_and_stops_while_it_waits(
    ingest_env: IngestEnvironment,
    own_broker: EmbeddedBroker,
    topic_name: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("infra.kafka.connections.BOOTSTRAP_TIMEOUT_MS", 300)
    settings = publishing_settings(own_broker.address, topic_name)
    feeds = PublishedFeeds(settings, ingest_env.connection, ingest_env.service)
    own_broker.stop()
    with PublisherThread(settings, ingest_env.service) as telling:
        wait_until(lambda: telling.publisher.failures >= 2)
    add_grants(ingest_env, feeds)
    with PublisherThread(settings, ingest_env.service) as telling:
        wait_until(lambda: telling.publisher.failures >= 1)
        own_broker.start()
        wait_until(feeds.published)
    feeds.assert_published(repeats=True)


def test_an_event_of_a_newer_version_stops_it(ingest_env: IngestEnvironment, settings: Settings) -> None:
    ingest_env.open("org-1")
    ingest_env.connection.execute(
        "INSERT INTO ledger.events (originator_id, originator_version, topic, state)"
        " SELECT originator_id, 99, 'unheard_of.v1', '[]' FROM ledger.events LIMIT 1"
    )
    telling = PublisherThread(settings, ingest_env.service)
    with pytest.raises(UnknownEventType), telling:
        telling._thread.join()


# --------------------------------------------------------------------------------- two publishers


def test_one_publishes_and_another_stands_by(
    ingest_env: IngestEnvironment, feeds: PublishedFeeds, settings: Settings
) -> None:
    add_grants(ingest_env, feeds)
    with PublisherThread(settings, ingest_env.service, name="first") as first:
        wait_until(lambda: first.publisher.is_leader)
        with PublisherThread(settings, ingest_env.service, name="second") as second:
            wait_until(feeds.published)
            assert not second.publisher.is_leader
            first.stop()
            wait_until(lambda: second.publisher.is_leader)
            add_grants(ingest_env, feeds)
            wait_until(feeds.published)
            assert second.publisher.records[settings.events_topic] == 5 * len(ORGANISATIONS)
    feeds.assert_published()


def test_the_standby_takes_over_when_the_session_is_lost(
    ingest_env: IngestEnvironment, feeds: PublishedFeeds, settings: Settings
) -> None:
    add_grants(ingest_env, feeds)
    with (
        PublisherThread(settings, ingest_env.service, name="first", prepare=small_batches(3)),
        PublisherThread(settings, ingest_env.service, name="second", prepare=small_batches(3)),
    ):
        for _ in range(5):
            add_grants(ingest_env, feeds, grants=1)
            ingest_env.terminate("first")
            ingest_env.terminate("second")
        wait_until(feeds.published)
    feeds.assert_published(repeats=True)


@pytest.mark.parametrize("ended_by", ["the server", "an operator"])
def test_a_state_is_published_again_after_a_late_older_one(
    ingest_env: IngestEnvironment,
    feeds: PublishedFeeds,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    ended_by: str,
) -> None:
    """One publisher sleeps between reading and sending; the other takes over and publishes newer states."""
    if ended_by == "the server":
        monkeypatch.setattr("projections.engine.leader_election._IDLE_SESSION_TIMEOUT_S", 3)
    ingest_env.open("org-1", trial_credits=1)
    feeds.project()

    def sleepy(telling: Publisher) -> None:
        send = telling._sender.send
        slept: list[int] = []

        def sleep_once(topic: str, content_type: str, messages: Any) -> int:
            if topic == settings.balances_topic and not slept:
                slept.append(1)
                if ended_by == "an operator":
                    ingest_env.terminate("sleeper")
                wait_until(lambda: not ingest_env.sessions("sleeper"))
                ingest_env.grant("org-1", 5)
                feeds.project()
                wait_until(lambda: feeds.position(topic) == feeds.log_end())
            return send(topic, content_type, messages)

        telling._sender.send = sleep_once  # type: ignore[method-assign]

    with PublisherThread(settings, ingest_env.service, name="sleeper", prepare=sleepy) as sleeper:
        wait_until(lambda: sleeper.publisher.is_leader)
        with PublisherThread(settings, ingest_env.service, name="heir") as heir:
            wait_until(lambda: sleeper.publisher.failures == 1)
            wait_until(lambda: not sleeper.publisher._unconfirmed)
            wait_until(feeds.published)
            assert heir.publisher.is_leader
    available = [state["available"] for state in feeds.balances()["org-1"]]
    newer = available.index(6)
    assert 1 in available[newer:], "the late state was never sent: the test did not work"
    assert available[-1] == 6
    feeds.assert_published(repeats=True)


def test_a_position_that_another_publisher_moved_is_not_moved(
    ingest_env: IngestEnvironment, feeds: PublishedFeeds, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two publishers run in spite of the lock: one of them makes progress, the other reads the position
    again.
    """
    monkeypatch.setattr("consumers.publishing.publisher._TAKE_LOCK", "SELECT true")
    add_grants(ingest_env, feeds)
    with (
        PublisherThread(settings, ingest_env.service, name="first", prepare=small_batches(4)) as first,
        PublisherThread(settings, ingest_env.service, name="second", prepare=small_batches(4)) as second,
    ):
        wait_until(lambda: first.publisher.is_leader and second.publisher.is_leader)
        for _ in range(4):
            add_grants(ingest_env, feeds, grants=2)
        wait_until(lambda: first.publisher.failures + second.publisher.failures > 0)
        wait_until(feeds.published)
    # One may have been stopped just after it had sent an old state and moved the position back for it.
    with PublisherThread(settings, ingest_env.service, name="third"):
        wait_until(feeds.published)
    feeds.assert_published(repeats=True)


# ----------------------------------------------------------------------------------------- numbers


def test_metrics(ingest_env: IngestEnvironment, feeds: PublishedFeeds, settings: Settings) -> None:
    add_grants(ingest_env, feeds)
    with PublisherThread(settings, ingest_env.service) as telling:
        wait_until(feeds.published)
        wait_until(lambda: len(telling.publisher.statuses) == 2)
        samples = {
            (sample.name, sample.labels.get("topic")): sample.value
            for metric in publisher_metrics(telling.publisher).collect()
            for sample in metric.samples
        }
    events, balances = settings.events_topic, settings.balances_topic
    assert samples == {
        ("creditledger_published_records_total", events): len(feeds.log()),
        ("creditledger_published_records_total", balances): len(ORGANISATIONS),
        ("creditledger_published_position", events): feeds.log_end(),
        ("creditledger_published_position", balances): feeds.log_end(),
        ("creditledger_published_lag", events): 0,
        ("creditledger_published_lag", balances): 0,
        ("creditledger_publisher_leads", None): 1,
        ("creditledger_publisher_interruptions_total", None): 0,
        ("creditledger_publisher_too_large_total", None): 0,
    }
