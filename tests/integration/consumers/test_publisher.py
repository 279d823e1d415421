"""The publisher on a real broker and a real database: everything is told, in order, whatever fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consumers import publisher_positions
from consumers.publisher import Publisher
from domain.errors import UnknownEventType
from infra.embedded.broker import EmbeddedBroker
from infra.settings import Settings
from infra.telemetry import publisher_metrics
from tests.integration.consumers.lab import Lab
from tests.integration.consumers.service import wait_until
from tests.integration.consumers.telling import (
    Crash,
    Readers,
    Telling,
    make_anew,
    publishing_settings,
    small_batches,
)

ORGANISATIONS = [f"org-{number}" for number in range(7)]


@pytest.fixture
def settings(broker: str, topic_name: Callable[[str], str]) -> Settings:
    return publishing_settings(broker, topic_name)


@pytest.fixture
def readers(lab: Lab, settings: Settings) -> Readers:
    return Readers(settings, lab.connection, lab.service)


@pytest.fixture
def own_broker(servers_root: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(servers_root / "broker-of-one-test") as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.publisher.TOPICS_CHECKED_EVERY_S", 0.2)
    monkeypatch.setattr("consumers.publisher.BACKOFF_MOST_S", 0.3)


def tell_stories(lab: Lab, readers: Readers, grants: int = 5) -> None:
    """Open organisations on first use, let things happen to all of them in turn, and project it."""
    if not readers.projected():
        lab.open(*ORGANISATIONS, trial_credits=0)
    for number in range(grants):
        for name in ORGANISATIONS:
            lab.grant(name, number + 1)
    readers.project()


def test_everything_is_told_once_and_in_order(lab: Lab, readers: Readers, settings: Settings) -> None:
    lab.open("nobody", trial_credits=0)
    tell_stories(lab, readers)
    with Telling(settings, lab.service, prepare=small_batches(10)) as telling:
        wait_until(readers.told)
        lab.grant("org-3", 100)  # heard of while it listens
        readers.project()
        wait_until(readers.told)
        wait_until(lambda: {each.lag for each in telling.publisher.standings.values()} == {0})
    readers.assert_told()
    assert telling.publisher.failures == 0
    assert telling.publisher.records[settings.events_topic] == len(readers.log())
    assert readers.balances()["nobody"][-1]["processing"] == "paused"
    states = readers.balances()["org-3"]
    assert (states[-1]["available"], states[-1]["processing"]) == (115, "allowed")
    assert [state["position"] for state in states] == sorted(state["position"] for state in states)

    with Telling(settings, lab.service) as again:
        wait_until(lambda: len(again.publisher.standings) == 2)
        assert set(again.publisher.records.values()) == {0}


def test_a_balance_waits_for_the_projection_and_an_event_does_not(
    lab: Lab, readers: Readers, settings: Settings
) -> None:
    lab.open("org-1")
    with Telling(settings, lab.service) as telling:
        wait_until(lambda: readers.position(settings.events_topic) == readers.log_end())
        wait_until(lambda: settings.balances_topic in telling.publisher.standings)
        assert telling.publisher.standings[settings.balances_topic].lag == readers.log_end()
        assert telling.publisher.records[settings.balances_topic] == 0
        readers.project()
        wait_until(readers.told)
    readers.assert_told()


def test_holds_are_not_available(lab: Lab, readers: Readers, settings: Settings) -> None:
    lab.open("org-1", trial_credits=10)
    readers.project()
    lab.connection.execute("UPDATE projections.balances SET on_hold = 10")
    with Telling(settings, lab.service):
        wait_until(readers.told)
    ((state,),) = readers.balances().values()
    assert (state["available"], state["balance"], state["on_hold"]) == (0, 10, 10)
    assert state["processing"] == "paused"


def test_a_topic_that_takes_too_little_is_complained_of_until_it_takes_enough(
    lab: Lab, readers: Readers, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    takes = 200

    def refuse_more(telling: Publisher) -> None:
        connect = telling._sender._connect

        def connect_to_less() -> Any:
            producer = connect()
            producer.config["max_request_size"] = takes
            return producer

        telling._sender._connect = connect_to_less

    tell_stories(lab, readers)
    with Telling(settings, lab.service, prepare=refuse_more) as telling:
        wait_until(lambda: telling.publisher.too_large > 1)
        assert readers.events() == []
        takes = 1_000_000
        wait_until(readers.told)
    readers.assert_told()
    assert "set its max.message.bytes" in caplog.text


# ---------------------------------------------------------------------- between the broker and us


def failing_once(monkeypatch: pytest.MonkeyPatch, fail: Callable[[], object], topic: str) -> None:
    """Let something fail once, after the broker took a second batch and before the position moves."""
    move = publisher_positions.move
    moves: list[str] = []

    def failing(connection: Any, of: str, seen: Any, to: int) -> Any:
        moves.append(of)
        if of == topic and moves.count(topic) == 2:
            fail()
        return move(connection, of, seen, to)

    monkeypatch.setattr(publisher_positions, "move", failing)


@pytest.mark.parametrize("topic", ["events_topic", "balances_topic"])
def test_a_database_lost_after_the_broker_took_a_batch(
    lab: Lab, readers: Readers, settings: Settings, monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    tell_stories(lab, readers)
    ended: list[int] = []
    failing_once(monkeypatch, lambda: ended.append(lab.terminate("publisher")), getattr(settings, topic))
    with Telling(settings, lab.service, prepare=small_batches(9)) as telling:
        wait_until(readers.told)
        tell_stories(lab, readers)
        wait_until(readers.told)
        assert telling.publisher.failures == 1
    assert ended == [1]
    readers.assert_told(repeats=True)
    if topic == "events_topic":
        assert len(readers.events()) == len(readers.log()) + 9


def test_a_crash_between_the_acknowledgement_and_the_position(
    lab: Lab, readers: Readers, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> None:
        raise Crash

    tell_stories(lab, readers)
    failing_once(monkeypatch, crash, settings.events_topic)
    telling = Telling(settings, lab.service, prepare=small_batches(9))
    with pytest.raises(Crash), telling:
        telling._thread.join()
    assert readers.position(settings.events_topic) == readers.log()[8][1]
    with Telling(settings, lab.service):
        wait_until(readers.told)
    readers.assert_told(repeats=True)
    assert len(readers.events()) == len(readers.log()) + 9


@pytest.mark.parametrize("running", [True, False], ids=["while running", "while stopped"])
def test_a_broker_that_restarts_with_nothing_is_told_everything_again(
    lab: Lab, own_broker: EmbeddedBroker, topic_name: Callable[[str], str], running: bool
) -> None:
    settings = publishing_settings(own_broker.address, topic_name)
    readers = Readers(settings, lab.connection, lab.service)
    tell_stories(lab, readers)

    def wait_for_all_again() -> None:
        wait_until(lambda: readers.topic_id(settings.events_topic) not in ("", first_id))
        wait_until(readers.told)

    with Telling(settings, lab.service):
        wait_until(readers.told)
        first_id = readers.topic_id(settings.events_topic)
        if running:
            restart(own_broker, lab, readers)
            wait_for_all_again()
    if not running:
        restart(own_broker, lab, readers)
        with Telling(settings, lab.service):
            wait_for_all_again()
    readers.assert_told(repeats=running)


def restart(broker: EmbeddedBroker, lab: Lab, readers: Readers) -> None:
    """Restart a broker, which forgets everything, while the ledger goes on."""
    broker.stop()
    lab.grant("org-1")
    readers.project()
    broker.start()


def test_topics_made_anew_are_told_everything_again(lab: Lab, readers: Readers, settings: Settings) -> None:
    tell_stories(lab, readers)
    with Telling(settings, lab.service):
        wait_until(readers.told)
        seen = {readers.topic_id(settings.events_topic), readers.topic_id(settings.balances_topic)}
        make_anew(settings)
        wait_until(lambda: readers.topic_id(settings.events_topic) not in seen)
        wait_until(lambda: readers.topic_id(settings.balances_topic) not in seen)
        wait_until(readers.told)
    readers.assert_told(repeats=True)


def test_it_waits_for_a_broker_and_stops_while_it_waits(
    lab: Lab, own_broker: EmbeddedBroker, topic_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.kafka.BOOTSTRAP_TIMEOUT_MS", 300)
    settings = publishing_settings(own_broker.address, topic_name)
    readers = Readers(settings, lab.connection, lab.service)
    own_broker.stop()
    with Telling(settings, lab.service) as telling:
        wait_until(lambda: telling.publisher.failures >= 2)
    tell_stories(lab, readers)
    with Telling(settings, lab.service) as telling:
        wait_until(lambda: telling.publisher.failures >= 1)
        own_broker.start()
        wait_until(readers.told)
    readers.assert_told(repeats=True)


def test_events_of_a_newer_version_end_it(lab: Lab, settings: Settings) -> None:
    lab.open("org-1")
    lab.connection.execute(
        "INSERT INTO ledger.events (originator_id, originator_version, topic, state)"
        " SELECT originator_id, 99, 'unheard_of.v1', '[]' FROM ledger.events LIMIT 1"
    )
    telling = Telling(settings, lab.service)
    with pytest.raises(UnknownEventType), telling:
        telling._thread.join()


# --------------------------------------------------------------------------------- two publishers


def test_one_publishes_and_another_stands_by(lab: Lab, readers: Readers, settings: Settings) -> None:
    tell_stories(lab, readers)
    with Telling(settings, lab.service, name="first") as first:
        wait_until(lambda: first.publisher.leads)
        with Telling(settings, lab.service, name="second") as second:
            wait_until(readers.told)
            assert not second.publisher.leads
            first.stop()
            wait_until(lambda: second.publisher.leads)
            tell_stories(lab, readers)
            wait_until(readers.told)
            assert second.publisher.records[settings.events_topic] == 5 * len(ORGANISATIONS)
    readers.assert_told()


def test_whoever_loses_the_session_is_followed_by_the_other(
    lab: Lab, readers: Readers, settings: Settings
) -> None:
    tell_stories(lab, readers)
    with (
        Telling(settings, lab.service, name="first", prepare=small_batches(3)),
        Telling(settings, lab.service, name="second", prepare=small_batches(3)),
    ):
        for _ in range(5):
            tell_stories(lab, readers, grants=1)
            lab.terminate("first")
            lab.terminate("second")
        wait_until(readers.told)
    readers.assert_told(repeats=True)


@pytest.mark.parametrize("ended_by", ["the server", "an operator"])
def test_a_state_sent_out_of_turn_is_told_again(
    lab: Lab, readers: Readers, settings: Settings, monkeypatch: pytest.MonkeyPatch, ended_by: str
) -> None:
    """One sleeps between reading and sending; the other takes over and tells newer states meanwhile."""
    if ended_by == "the server":
        monkeypatch.setattr("projections.leading._SESSION_ENDS_AFTER_S", 3)
    lab.open("org-1", trial_credits=1)
    readers.project()

    def sleepy(telling: Publisher) -> None:
        send = telling._sender.send
        slept: list[int] = []

        def sleep_once(topic: str, content_type: str, messages: Any) -> int:
            if topic == settings.balances_topic and not slept:
                slept.append(1)
                if ended_by == "an operator":
                    lab.terminate("sleeper")
                wait_until(lambda: not lab.sessions("sleeper"))
                lab.grant("org-1", 5)
                readers.project()
                wait_until(lambda: readers.position(topic) == readers.log_end())
            return send(topic, content_type, messages)

        telling._sender.send = sleep_once  # type: ignore[method-assign]

    with Telling(settings, lab.service, name="sleeper", prepare=sleepy) as sleeper:
        wait_until(lambda: sleeper.publisher.leads)
        with Telling(settings, lab.service, name="heir") as heir:
            wait_until(lambda: sleeper.publisher.failures == 1)
            wait_until(lambda: not sleeper.publisher._unproven)
            wait_until(readers.told)
            assert heir.publisher.leads
    available = [state["available"] for state in readers.balances()["org-1"]]
    newer = available.index(6)
    assert 1 in available[newer:], "the state sent out of turn is not there: nothing was tried"
    assert available[-1] == 6
    readers.assert_told(repeats=True)


def test_a_position_that_another_one_moved_is_not_moved_again(
    lab: Lab, readers: Readers, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at work in spite of the lock: one of them gets on, the other reads the position again."""
    monkeypatch.setattr("consumers.publisher._TAKE_LOCK", "SELECT true")
    tell_stories(lab, readers)
    with (
        Telling(settings, lab.service, name="first", prepare=small_batches(4)) as first,
        Telling(settings, lab.service, name="second", prepare=small_batches(4)) as second,
    ):
        wait_until(lambda: first.publisher.leads and second.publisher.leads)
        for _ in range(4):
            tell_stories(lab, readers, grants=2)
        wait_until(lambda: first.publisher.failures + second.publisher.failures > 0)
        wait_until(readers.told)
    # One may have been stopped just when it had sent an old state and moved the position back for it.
    with Telling(settings, lab.service, name="third"):
        wait_until(readers.told)
    readers.assert_told(repeats=True)


# ----------------------------------------------------------------------------------------- numbers


def test_metrics(lab: Lab, readers: Readers, settings: Settings) -> None:
    tell_stories(lab, readers)
    with Telling(settings, lab.service) as telling:
        wait_until(readers.told)
        wait_until(lambda: len(telling.publisher.standings) == 2)
        samples = {
            (sample.name, sample.labels.get("topic")): sample.value
            for metric in publisher_metrics(telling.publisher).collect()
            for sample in metric.samples
        }
    events, balances = settings.events_topic, settings.balances_topic
    assert samples == {
        ("creditledger_published_records_total", events): len(readers.log()),
        ("creditledger_published_records_total", balances): len(ORGANISATIONS),
        ("creditledger_published_position", events): readers.log_end(),
        ("creditledger_published_position", balances): readers.log_end(),
        ("creditledger_published_lag", events): 0,
        ("creditledger_published_lag", balances): 0,
        ("creditledger_publisher_leads", None): 1,
        ("creditledger_publisher_interruptions_total", None): 0,
        ("creditledger_publisher_too_large_total", None): 0,
    }
