"""Publishing with failing producers: repeats have the same ids and order, and the account is correct."""

from collections.abc import Callable
from threading import Event, Timer
from typing import Any, NamedTuple

import pytest
from kafka.errors import KafkaTimeoutError, OutOfOrderSequenceNumberError

from consumers.client import sending
from infra.simulator.options import NO_FAULTS, FaultRates
from infra.simulator.pipeline import run
from tests.unit.simulator.simulations import CAMPUS, history, options, ticking


class Metadata(NamedTuple):
    partition: int
    offset: int


class Future:
    """A future that is resolved immediately. With `outcome` None it is never resolved."""

    def __init__(self, outcome: Metadata | Exception | None) -> None:
        self.outcome = outcome

    def add_callback(self, then: Callable[[Any], None]) -> None:
        if isinstance(self.outcome, Metadata):
            then(self.outcome)

    def add_errback(self, then: Callable[[Any], None]) -> None:
        if isinstance(self.outcome, Exception):
            then(self.outcome)


class Broker:
    """Makes producers. Each accepts `lifetimes` records and then fails as `ending` says."""

    def __init__(self, *lifetimes: int, ending: Exception | None = None, raised: bool = False) -> None:
        self.lifetimes = list(lifetimes)
        self.ending = ending
        self.raised = raised
        self.log: list[bytes] = []
        self.refused: list[bytes] = []
        self.producers = 0
        self.closed = 0
        self.future = Future
        self.on_refused: Callable[[], None] = lambda: None

    def __call__(self) -> "Producer":
        self.producers += 1
        return Producer(self, self.lifetimes.pop(0) if self.lifetimes else 10**9)


class Producer:
    def __init__(self, broker: Broker, lifetime: int) -> None:
        self.broker = broker
        self.lifetime = lifetime

    def send(self, topic: str, *, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> Future:
        if self.lifetime == 0:
            self.broker.refused.append(value)
            self.broker.on_refused()
            if self.broker.raised and self.broker.ending is not None:
                raise self.broker.ending
            return self.broker.future(self.broker.ending)
        self.lifetime -= 1
        self.broker.log.append(value)
        return Future(Metadata(0, len(self.broker.log) - 1))

    def close(self, timeout: float) -> None:
        self.broker.closed += 1


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_BACKOFF_INITIAL_S", 0.001)


HISTORY = options(organisations=(CAMPUS,), live_per_second=0, fault_rates=NO_FAULTS)
VALUES = [record.value for record in history(organisations=(CAMPUS,), fault_rates=NO_FAULTS)]


def test_history_alone_is_published_and_the_run_ends() -> None:
    broker = Broker()
    sent_totals = run(HISTORY, broker, Event(), ticking())
    assert broker.log == VALUES
    assert sent_totals.as_dict()["organisations"]["campus-clicks"]["expected_credits"] == 188
    assert sent_totals.as_dict()["last_offsets"] == {"0": len(VALUES) - 1}
    assert (broker.producers, broker.closed) == (1, 1)


@pytest.mark.parametrize("raised", [False, True])
def test_a_failed_producer_is_replaced_and_the_rest_sent_again_in_order(raised: bool) -> None:
    broker = Broker(10, 0, 20, ending=OutOfOrderSequenceNumberError(), raised=raised)
    sent_totals = run(HISTORY, broker, Event(), ticking())
    assert broker.log == VALUES
    assert VALUES[10] in broker.refused
    assert broker.producers == broker.closed == 4
    assert sent_totals.acknowledged == len(VALUES)
    assert sent_totals.unconfirmed == 0


def test_a_silent_producer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "ACKNOWLEDGEMENT_TIMEOUT_S", 0.05)
    broker = Broker(5, ending=None)
    sent_totals = run(HISTORY, broker, Event(), ticking())
    assert broker.log == VALUES
    assert broker.producers == 2
    assert sent_totals.acknowledged == len(VALUES)


def test_a_factory_that_finds_no_broker_is_called_again() -> None:
    broker, calls = Broker(), []

    def factory() -> Producer:
        calls.append(1)
        if len(calls) < 4:
            raise KafkaTimeoutError
        return broker()

    assert run(HISTORY, factory, Event(), ticking()).acknowledged == len(VALUES)


def test_a_stop_reports_unacknowledged_messages() -> None:
    stop = Event()
    broker = Broker(3, ending=None)
    broker.on_refused = lambda: stop.set() if len(broker.refused) == 4 else None
    asked = options(organisations=(CAMPUS,), live_per_second=0, fault_rates=NO_FAULTS, drain_seconds=0.05)
    sent_totals = run(asked, broker, stop, ticking())
    sent = history(organisations=(CAMPUS,), fault_rates=NO_FAULTS)
    assert sent_totals.acknowledged == 3
    assert sent_totals.unconfirmed == 4
    unconfirmed = [record["id"] for record in sent_totals.as_dict()["unconfirmed"]]
    assert unconfirmed == [record.usage.message_id for record in sent[3:7]]


def test_the_number_of_messages_in_flight_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "IN_FLIGHT_MAX", 7)
    stop = Event()
    broker = Broker(3, ending=None)
    Timer(0.2, stop.set).start()
    asked = options(live_per_second=0, drain_seconds=0.01)
    assert run(asked, broker, stop, ticking()).unconfirmed == len(broker.refused) == 7


def test_a_stopped_run_publishes_nothing() -> None:
    stop = Event()
    stop.set()
    broker = Broker()
    assert run(options(), broker, stop, ticking()).acknowledged == 0
    assert broker.log == []


def test_live_traffic_keeps_its_rate_and_ends_after_its_number() -> None:
    asked = options(history=False, live_per_second=2_000, live_messages_max=200)
    broker = Broker()
    sent_totals = run(asked, broker, Event(), ticking())
    assert sent_totals.acknowledged == len(broker.log) == 200


def test_a_conflict_is_counted_after_failures_too() -> None:
    broker = Broker(40, 40, ending=OutOfOrderSequenceNumberError())
    troubled = FaultRates(repeated=0, conflicting=0.1)
    counted = run(options(live_per_second=0, fault_rates=troubled), broker, Event(), ticking()).as_dict()
    assert counted["conflicting"] == sum(record.waits for record in history(fault_rates=troubled)) > 0


def test_a_conflict_is_sent_after_all_earlier_messages_are_acknowledged() -> None:
    troubled = FaultRates(repeated=0, conflicting=0.1)
    waiting = {
        record.value for record in history(organisations=(CAMPUS,), fault_rates=troubled) if record.waits
    }
    sent: list[bytes] = []
    acknowledged: list[bytes] = []
    too_early: list[bytes] = []

    class Slow:
        def send(self, topic: str, *, value: bytes, **_: Any) -> "Slow":
            if value in waiting and len(acknowledged) < len(sent):
                too_early.append(value)
            sent.append(value)
            self.value = value
            return self

        def add_callback(self, then: Callable[[Any], None]) -> None:
            def acknowledge(value: bytes = self.value) -> None:
                acknowledged.append(value)
                then(Metadata(0, len(acknowledged)))

            Timer(0.005, acknowledge).start()

        def add_errback(self, then: Callable[[Any], None]) -> None:
            pass

        def close(self, timeout: float) -> None:
            pass

    asked = options(organisations=(CAMPUS,), live_per_second=0, fault_rates=troubled)
    assert run(asked, Slow, Event(), ticking()).unconfirmed == 0
    assert waiting <= set(sent)
    assert too_early == []


def test_a_late_failure_of_an_old_producer_does_not_affect_the_new_one() -> None:
    late: list[Callable[[Any], None]] = []

    class Lingering(Broker):
        def __call__(self) -> "Producer":
            for errback in late:
                errback(OutOfOrderSequenceNumberError())
            return super().__call__()

    class Kept(Future):
        def add_errback(self, then: Callable[[Any], None]) -> None:
            late.append(then)
            super().add_errback(then)

    broker = Lingering(10, ending=OutOfOrderSequenceNumberError())
    broker.future = Kept
    sent_totals = run(HISTORY, broker, Event(), ticking())
    assert sent_totals.acknowledged == len(VALUES)
    assert (broker.producers, broker.log) == (2, VALUES)
