"""The ledger's commands on a real PostgreSQL: each counts once, none is lost, and past states can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from threading import Barrier
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from domain.credits.command_result import CommandResult
from domain.credits.errors import (
    ChargeNotFound,
    CurrencyMismatch,
    OrganisationAlreadyOpen,
    OrganisationNotFound,
    PurchaseAlreadyRecorded,
    RefundExceedsCharge,
)
from domain.credits.events import GrantKind
from domain.credits.ledger import Ledger, replay
from domain.credits.organisation import Organisation
from domain.credits.organisation_state import SNAPSHOT_EVERY
from domain.event_catalogue import EventCodec
from domain.pricing.plans import Plan
from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS
from domain.shared.command_context import CommandContext
from domain.shared.command_runner import RecordedResult
from domain.shared.errors import (
    DuplicateKey,
    IdempotencyConflict,
    InvalidInput,
    StoreUnavailable,
)
from domain.shared.event_store import IdempotencyKey
from domain.shared.money import Currency
from domain.shared.stream_keys import stream_id
from infra.event_store.recorder import event_store_of
from infra.service.composition import credits_of
from tests.usage_reports import usage_report

ORG = "org-4711"
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
RECOVERS_WITHIN_S = 30.0


def ledger_at(conninfo: str) -> Ledger:
    return Ledger(
        {"PERSISTENCE_MODULE": "infra.event_store.recorder:LedgerFactory", "DATABASE_URL": conninfo}
    )


@pytest.fixture
def ledger(service_database: str) -> Iterator[Ledger]:
    ledger = ledger_at(service_database)
    yield ledger
    ledger.close()


@pytest.fixture
def sql(migrated_database: str) -> Iterator[Callable[..., list[Any]]]:
    """A function that runs a query as the superuser and returns its rows."""
    with psycopg.connect(migrated_database, autocommit=True) as connection:

        def run(query: str, *parameters: Any) -> list[Any]:
            cursor = connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []

        yield run


def request(at: datetime = NOON) -> CommandContext:
    return CommandContext(at, "u-1", "request-1")


def idempotency_key(key: str = "key-1", asked: bytes = b"what was asked") -> IdempotencyKey:
    return IdempotencyKey("grants", key, asked)


def grant(
    ledger: Ledger, credits_count: int, at: datetime = NOON, idempotency_key: IdempotencyKey | None = None
) -> RecordedResult[CommandResult]:
    return credits_of(ledger).commands.grant(
        ORG,
        credits_count,
        kind=GrantKind.ADMIN,
        reason="goodwill",
        context=request(at),
        idempotency_key=idempotency_key,
    )


def purchase(
    ledger: Ledger, payment_id: str = "pay-1", idempotency_key: IdempotencyKey | None = None
) -> RecordedResult[CommandResult]:
    return credits_of(ledger).commands.record_purchase(
        ORG,
        1_000,
        payment_id=payment_id,
        order_id="order-1",
        gateway="razorpay",
        context=request(),
        idempotency_key=idempotency_key,
    )


def recorded(organisation_id: str, version: int, balance: int, *amounts: Any) -> CommandResult:
    """The result of a command without open holds."""
    return CommandResult(organisation_id, version, balance, *amounts, available=balance)


def charge(ledger: Ledger, photos: int, message_id: str) -> int:
    """Append a charge, as the consumer would, and return its version."""
    organisation = ledger.organisation(ORG)
    report = usage_report(
        source="/worker",
        message_id=message_id,
        organisation_id=ORG,
        occurred_at=NOON,
        run_id="run-1",
        photos=photos,
        user=None,
    )
    envelope = organisation.charge(report, WHOLE_CREDIT_MILLIONTHS, NOON)
    append(ledger, organisation)
    return envelope.originator_version


def append(ledger: Ledger, organisation: Organisation) -> None:
    ledger.events.append(organisation.collect_events(), idempotency_key=None, response=b"")


def refund(
    ledger: Ledger,
    number: int,
    credits_count: int | None = None,
    idempotency_key: IdempotencyKey | None = None,
) -> RecordedResult[CommandResult]:
    return credits_of(ledger).commands.refund_charge(
        ORG, number, credits_count, reason="blurred", context=request(), idempotency_key=idempotency_key
    )


def before_the_lock(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something once, after the next command has decided and before it takes the write lock."""
    store = event_store_of(ledger).group_commit._store
    begin = store.begin

    def begin_late() -> Any:
        monkeypatch.setattr(store, "begin", begin)
        action()
        return begin()

    monkeypatch.setattr(store, "begin", begin_late)


def miss_the_first_response(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store the response of a request just after the ledger's first look-up."""
    looked = []
    look = ledger.events.find_stored_response

    def find_stored_response(asked: IdempotencyKey) -> Any:
        looked.append(asked)
        return look(asked) if len(looked) > 1 else None

    monkeypatch.setattr(ledger.events, "find_stored_response", find_stored_response)


class TestOpening:
    def test_an_organisation_opens_with_trial_credits_at_the_default_price(self, ledger: Ledger) -> None:
        result = credits_of(ledger).commands.open_organisation(
            ORG, context=request(), currency=Currency.INR, time_zone="Asia/Kolkata"
        )
        assert result == RecordedResult(recorded(ORG, 2, 200, 200), 2, repeated=False)
        organisation = ledger.organisation(ORG)
        assert (organisation.price_millionths, organisation.time_zone) == (1_500_000, "Asia/Kolkata")

    def test_a_price_of_its_own(self, ledger: Ledger) -> None:
        credits_of(ledger).commands.open_organisation(
            ORG, context=request(), price_millionths=0, trial_credits=0
        )
        organisation = ledger.organisation(ORG)
        assert (organisation.price_millionths, organisation.balance) == (0, 0)

    def test_it_opens_once(self, ledger: Ledger) -> None:
        credits_of(ledger).commands.open_organisation(ORG, context=request())
        with pytest.raises(OrganisationAlreadyOpen):
            credits_of(ledger).commands.open_organisation(ORG, context=request())
        with pytest.raises(OrganisationAlreadyOpen):
            credits_of(ledger).commands.open_organisation(
                ORG, context=request(), idempotency_key=idempotency_key()
            )
        assert ledger.organisation(ORG).version == 2

    def test_a_repeated_request_opens_it_once_and_gets_the_same_response(self, ledger: Ledger) -> None:
        first = credits_of(ledger).commands.open_organisation(
            ORG, context=request(), idempotency_key=idempotency_key()
        )
        again = credits_of(ledger).commands.open_organisation(
            ORG, context=request(), idempotency_key=idempotency_key()
        )
        assert (again.value, again.position, again.repeated) == (first.value, first.position, True)

    @pytest.mark.parametrize("organisation_id", ["", "x" * 65, "org\n1", "org\0", "\ud800"])
    def test_bad_ids_are_refused(self, ledger: Ledger, organisation_id: str) -> None:
        with pytest.raises(InvalidInput, match="1 to 64 printable characters"):
            credits_of(ledger).commands.open_organisation(organisation_id, context=request())

    @pytest.mark.parametrize("organisation_id", ["x" * 64, "organisation ✓", "4711"])
    def test_any_other_id_is_accepted(self, ledger: Ledger, organisation_id: str) -> None:
        credits_of(ledger).commands.open_organisation(organisation_id, context=request())
        assert ledger.organisation(organisation_id).organisation_id == organisation_id

    def test_every_command_needs_an_open_organisation(self, ledger: Ledger) -> None:
        commands: list[Callable[[], object]] = [
            lambda: grant(ledger, 1),
            lambda: purchase(ledger),
            lambda: refund(ledger, 1),
            lambda: credits_of(ledger).commands.change_price(ORG, 1, context=request()),
            lambda: credits_of(ledger).commands.change_plan(ORG, Plan.PRO, context=request()),
            lambda: credits_of(ledger).commands.change_time_zone(ORG, "UTC", context=request()),
            lambda: ledger.organisation(ORG),
            lambda: ledger.organisation_as_of(ORG, NOON),
        ]
        for command in commands:
            with pytest.raises(OrganisationNotFound, match="no organisation has the id 'org-4711'"):
                command()


@pytest.fixture
def opened(ledger: Ledger) -> Ledger:
    """The ledger with one organisation, opened at noon with 200 free credits."""
    credits_of(ledger).commands.open_organisation(ORG, context=request())
    return ledger


class TestCommands:
    def test_a_grant(self, opened: Ledger) -> None:
        assert grant(opened, 50) == RecordedResult(recorded(ORG, 3, 250, 50), 3, repeated=False)

    def test_a_purchase_at_the_price_of_the_moment(self, opened: Ledger) -> None:
        credits_of(opened).commands.change_price(ORG, 15_000, context=request())
        assert purchase(opened).value == recorded(ORG, 4, 1_200, 1_000, 1_500, 0, "USD")
        assert opened.organisation(ORG).plan is Plan.PAY_AS_YOU_GO

    def test_a_payment_in_another_currency(self, opened: Ledger) -> None:
        with pytest.raises(CurrencyMismatch):
            credits_of(opened).commands.record_purchase(
                ORG,
                1_000,
                payment_id="pay-1",
                order_id="order-1",
                gateway="razorpay",
                currency=Currency.INR,
                context=request(),
            )

    def test_changes_of_price_plan_and_zone(self, opened: Ledger) -> None:
        in_a_year = NOON + timedelta(days=365)
        credits_of(opened).commands.change_price(ORG, 15_000, context=request())
        credits_of(opened).commands.change_plan(ORG, Plan.PRO, expires_at=in_a_year, context=request())
        credits_of(opened).commands.change_plan(ORG, Plan.PRO, context=request())
        result = credits_of(opened).commands.change_time_zone(ORG, "Asia/Kolkata", context=request())
        organisation = opened.organisation(ORG)
        assert result.value == recorded(ORG, 6, 200)
        assert (organisation.price_millionths, organisation.plan_expires_at) == (15_000, None)
        assert organisation.time_zone == "Asia/Kolkata"

    def test_the_end_of_a_plan_needs_its_zone(self, opened: Ledger) -> None:
        with pytest.raises(InvalidInput, match="needs its zone") as refusal:
            credits_of(opened).commands.change_plan(
                ORG,
                Plan.PRO,
                expires_at=datetime(2027, 1, 1),  # noqa: DTZ001
                context=request(),
            )
        assert refusal.value.field == "expires_at"

    def test_a_plan_does_not_end_before_it_begins(self, opened: Ledger) -> None:
        asked = request()
        with pytest.raises(InvalidInput, match="have ended already") as refusal:
            credits_of(opened).commands.change_plan(ORG, Plan.PRO, expires_at=asked.at, context=asked)
        assert refusal.value.field == "expires_at"
        credits_of(opened).commands.change_plan(
            ORG, Plan.PRO, expires_at=asked.at + timedelta(seconds=1), context=asked
        )

    def test_a_refused_command_writes_nothing(self, opened: Ledger, sql: Any) -> None:
        with pytest.raises(InvalidInput):
            grant(opened, 0, idempotency_key=idempotency_key())
        assert sql("SELECT count(*) FROM ledger.events") == [(2,)]
        assert not grant(opened, 5, idempotency_key=idempotency_key()).repeated, (
            "a refused request may be asked again"
        )


class TestRefunds:
    def test_partial_refunds_go_to_the_lots_of_the_charge(self, opened: Ledger) -> None:
        purchase(opened)
        number = charge(opened, 500, "m-1")
        assert refund(opened, number, 300).value == recorded(ORG, number + 1, 1_000, 300)
        assert refund(opened, number).value == recorded(ORG, number + 2, 1_200, 200)
        lots = [(lot.number, lot.remaining) for lot in opened.organisation(ORG).lots]
        assert lots == [(2, 200), (3, 1_000)]
        with pytest.raises(RefundExceedsCharge):
            refund(opened, number)

    def test_a_refund_of_a_charge_on_a_refunded_overdraft(self, opened: Ledger) -> None:
        overdrawn = charge(opened, 230, "m-1")
        purchase(opened)
        reopened = refund(opened, overdrawn, 30).value.version
        refund(opened, charge(opened, 30, "m-2"))
        first = opened.organisation(ORG).lots[0]
        assert (first.number, first.remaining) == (reopened, 30)

    @pytest.mark.parametrize("number", [1, 2, 0, -1, 3, 2**63, 2**70])
    def test_a_refund_needs_a_charge(self, opened: Ledger, number: int) -> None:
        with pytest.raises(ChargeNotFound, match=f"event {number} of org-4711 is not a charge"):
            refund(opened, number)

    def test_concurrent_refunds_return_the_charge_once(self, opened: Ledger) -> None:
        number = charge(opened, 200, "m-1")

        def try_refund(_: int) -> bool:
            try:
                refund(opened, number)
            except RefundExceedsCharge:
                return False
            return True

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(try_refund, range(4))) == 1
        assert opened.organisation(ORG).balance == 200


class TestIdempotency:
    def test_a_repeat_gets_the_first_response(self, opened: Ledger) -> None:
        first = grant(opened, 50, idempotency_key=idempotency_key())
        grant(opened, 7)
        again = grant(opened, 50, idempotency_key=idempotency_key())
        assert (again.value, again.position, again.repeated) == (first.value, first.position, True)
        assert opened.organisation(ORG).balance == 257

    def test_a_key_with_another_request_is_a_conflict(self, opened: Ledger) -> None:
        grant(opened, 50, idempotency_key=idempotency_key())
        with pytest.raises(IdempotencyConflict):
            grant(opened, 60, idempotency_key=idempotency_key(asked=b"something else"))
        assert opened.organisation(ORG).balance == 250

    def test_another_key_or_scope_is_another_request(self, opened: Ledger) -> None:
        grant(opened, 50, idempotency_key=idempotency_key())
        assert not grant(opened, 50, idempotency_key=idempotency_key("key-2")).repeated
        assert not grant(
            opened, 50, idempotency_key=IdempotencyKey("elsewhere", "key-1", b"what was asked")
        ).repeated
        assert opened.organisation(ORG).balance == 350

    def test_eight_concurrent_repeats_of_one_request(self, opened: Ledger) -> None:
        together = Barrier(8)

        def send(_: int) -> RecordedResult[CommandResult]:
            together.wait()
            return grant(opened, 50, idempotency_key=idempotency_key())

        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(send, range(8)))
        assert [result.repeated for result in results].count(False) == 1
        assert {result.value for result in results} == {recorded(ORG, 3, 250, 50)}
        assert opened.organisation(ORG).balance == 250

    def test_a_repeat_that_was_recorded_during_the_decision(
        self, opened: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = grant(opened, 50, idempotency_key=idempotency_key())
        miss_the_first_response(opened, monkeypatch)
        again = grant(opened, 50, idempotency_key=idempotency_key())
        assert (again.value, again.repeated) == (first.value, True)
        assert opened.organisation(ORG).balance == 250

    def test_a_conflicting_request_that_was_recorded_during_the_decision(
        self, opened: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grant(opened, 50, idempotency_key=idempotency_key())
        miss_the_first_response(opened, monkeypatch)
        with pytest.raises(IdempotencyConflict):
            grant(opened, 60, idempotency_key=idempotency_key(asked=b"something else"))


class TestPayments:
    def test_a_payment_adds_its_credits_once_with_any_key(self, opened: Ledger) -> None:
        purchase(opened)
        for key in (None, idempotency_key(), idempotency_key("key-2")):
            with pytest.raises(PurchaseAlreadyRecorded):
                purchase(opened, idempotency_key=key)
        assert opened.organisation(ORG).balance == 1_200

    def test_a_repeated_request_gets_the_first_response(self, opened: Ledger) -> None:
        first = purchase(opened, idempotency_key=idempotency_key())
        assert purchase(opened, idempotency_key=idempotency_key()) == RecordedResult(
            first.value, first.position, repeated=True
        )

    def test_a_webhook_and_a_page_that_report_it_at_once(self, opened: Ledger) -> None:
        def try_purchase(number: int) -> bool:
            try:
                purchase(opened, idempotency_key=idempotency_key(f"key-{number}"))
            except PurchaseAlreadyRecorded:
                return False
            return True

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(try_purchase, range(4))) == 1
        assert opened.organisation(ORG).balance == 1_200

    def test_a_repeat_that_is_found_under_the_write_lock(
        self, opened: Ledger, monkeypatch: pytest.MonkeyPatch, service_database: str
    ) -> None:
        with closing(ledger_at(service_database)) as other:
            before_the_lock(opened, monkeypatch, lambda: purchase(other))
            with pytest.raises(PurchaseAlreadyRecorded):
                purchase(opened, idempotency_key=idempotency_key())
        assert grant(opened, 5).value.balance == 1_205, "the lock is released"


class TestConcurrency:
    def test_eight_writers_and_every_grant_counts_once(self, opened: Ledger, service_database: str) -> None:
        ledgers = [opened, ledger_at(service_database)]
        together = Barrier(8)

        def write(writer: int) -> None:
            together.wait()
            for number in range(10):
                grant(
                    ledgers[writer % 2],
                    1,
                    idempotency_key=idempotency_key(f"{writer}-{number}") if number % 2 else None,
                )

        try:
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(write, range(8)))
        finally:
            ledgers[1].close()
        organisation = opened.organisation(ORG)
        assert (organisation.version, organisation.balance) == (2 + 80, 200 + 80)

    def test_the_second_writer_decides_again_on_the_newer_state(
        self, opened: Ledger, monkeypatch: pytest.MonkeyPatch, service_database: str
    ) -> None:
        with closing(ledger_at(service_database)) as other:
            before_the_lock(opened, monkeypatch, lambda: grant(other, 7))
            assert grant(opened, 50).value.balance == 257

    def test_a_repeat_of_another_writer_changes_nothing(
        self, opened: Ledger, monkeypatch: pytest.MonkeyPatch, service_database: str
    ) -> None:
        result = grant(opened, 50, idempotency_key=idempotency_key())
        with closing(ledger_at(service_database)) as other:
            before_the_lock(opened, monkeypatch, lambda: grant(other, 50, idempotency_key=idempotency_key()))
            assert grant(opened, 1).value.balance == 251, "the other writer only repeated a request"
        assert grant(opened, 50, idempotency_key=idempotency_key()) == RecordedResult(
            result.value, result.position, repeated=True
        )

    def test_a_refusal_under_the_write_lock_writes_nothing_and_releases_it(
        self, opened: Ledger, monkeypatch: pytest.MonkeyPatch, sql: Any, service_database: str
    ) -> None:
        number = charge(opened, 200, "m-1")
        with closing(ledger_at(service_database)) as other:
            before_the_lock(opened, monkeypatch, lambda: refund(other, number))
            with pytest.raises(RefundExceedsCharge):
                refund(opened, number)
        # Opened, trial, charge, exhausted, refund of the other writer, replenished.
        assert sql("SELECT count(*) FROM ledger.events") == [(6,)]
        assert grant(opened, 5).value.balance == 205

    def test_a_usage_message_counts_once(self, opened: Ledger) -> None:
        charge(opened, 10, "m-1")
        with pytest.raises(DuplicateKey):
            charge(opened, 10, "m-1")
        assert opened.organisation(ORG).balance == 190


class TestTime:
    @pytest.fixture
    def story(self, opened: Ledger) -> Ledger:
        """An organisation: opened at noon with 200; +1 at one o'clock; +10 and +100 both at two."""
        grant(opened, 1, NOON + timedelta(hours=1))
        grant(opened, 10, NOON + timedelta(hours=2))
        grant(opened, 100, NOON + timedelta(hours=2))
        return opened

    @pytest.mark.parametrize(
        ("moment", "version", "balance"),
        [
            pytest.param(NOON, 2, 200, id="at noon, both events of the opening"),
            pytest.param(NOON + timedelta(hours=1) - MOMENT, 2, 200, id="just before one"),
            pytest.param(NOON + timedelta(hours=1), 3, 201, id="at one"),
            pytest.param(NOON + timedelta(hours=2) - MOMENT, 3, 201, id="just before two"),
            pytest.param(NOON + timedelta(hours=2), 5, 311, id="at two, both grants"),
            pytest.param(NOON + timedelta(days=365), 5, 311, id="in a year"),
        ],
    )
    def test_the_organisation_as_of_a_moment(
        self, story: Ledger, moment: datetime, version: int, balance: int
    ) -> None:
        organisation = story.organisation_as_of(ORG, moment)
        assert (organisation.version, organisation.balance) == (version, balance)

    def test_before_it_was_open(self, story: Ledger) -> None:
        with pytest.raises(OrganisationNotFound, match=r"was not open at 2026-07-01T11:59:59\.999999"):
            story.organisation_as_of(ORG, NOON - MOMENT)

    def test_the_organisation_as_of_a_version(self, story: Ledger) -> None:
        balances = [story.organisation(ORG, version=version).balance for version in range(1, 6)]
        assert balances == [0, 200, 201, 211, 311]
        with pytest.raises(OrganisationNotFound):
            story.organisation(ORG, version=0)


class TestSnapshots:
    @pytest.fixture
    def long(self, opened: Ledger) -> Ledger:
        """An organisation one event short of its first snapshot."""
        organisation = opened.organisation(ORG)
        while organisation.version < SNAPSHOT_EVERY - 1:
            at = NOON + timedelta(seconds=organisation.version)
            organisation.grant(1, GrantKind.ADMIN, "", request(at))
        append(opened, organisation)
        return opened

    def test_one_is_kept_after_500_events(self, long: Ledger, sql: Any) -> None:
        assert sql("SELECT count(*) FROM ledger.snapshots") == [(0,)]
        grant(long, 1, NOON + timedelta(days=1))
        grant(long, 1, NOON + timedelta(days=2))
        assert sql("SELECT originator_version FROM ledger.snapshots") == [(SNAPSHOT_EVERY,)]

    def test_one_is_kept_when_a_decision_of_two_events_steps_over_it(self, long: Ledger, sql: Any) -> None:
        purchase(long)
        assert sql("SELECT originator_version FROM ledger.snapshots") == [(SNAPSHOT_EVERY + 1,)]

    def test_replay_from_it_gives_the_same_organisation(self, long: Ledger) -> None:
        grant(long, 1, NOON + timedelta(days=1))
        purchase(long)
        from_the_start = replay(None, long.events.get(stream_id(ORG)))
        assert from_the_start is not None
        from_snapshot = long.organisation(ORG)
        for name in ("version", "balance", "lots", "overdraft", "plan", "run_totals", "price_millionths"):
            assert getattr(from_snapshot, name) == getattr(from_the_start, name)

    def test_replay_starts_at_the_snapshot(self, long: Ledger, sql: Any) -> None:
        grant(long, 1, NOON + timedelta(days=1))
        richer = long.organisation(ORG).fork()
        richer.grant(1_000_000, GrantKind.ADMIN, "", request())
        save_snapshot(sql, richer, version=SNAPSHOT_EVERY)
        assert long.organisation(ORG).balance > 1_000_000
        assert long.organisation(ORG, version=SNAPSHOT_EVERY - 1).balance < 1_000_000

    def test_moments_before_and_after_it(self, long: Ledger) -> None:
        grant(long, 1, NOON + timedelta(days=1))
        grant(long, 1, NOON + timedelta(days=2))
        assert long.organisation_as_of(ORG, NOON + timedelta(seconds=100)).version == 101
        assert long.organisation_as_of(ORG, NOON + timedelta(days=1)).version == SNAPSHOT_EVERY
        assert long.organisation_as_of(ORG, NOON + timedelta(days=2)).version == SNAPSHOT_EVERY + 1

    def test_one_above_the_streams_end_is_ignored(self, opened: Ledger, sql: Any) -> None:
        dreamt = opened.organisation(ORG)
        dreamt.grant(1_000_000, GrantKind.ADMIN, "", request())
        save_snapshot(sql, dreamt, version=dreamt.version)
        assert opened.organisation(ORG).balance == 200
        assert grant(opened, 50).value == recorded(ORG, 3, 250, 50)


def save_snapshot(sql: Any, organisation: Organisation, version: int) -> None:
    """Store a snapshot of a state under a version, and replace an existing one."""
    codec = EventCodec()
    event = organisation.snapshot().event
    sql(
        "INSERT INTO ledger.snapshots VALUES (%s, %s, %s, %s) "
        "ON CONFLICT (originator_id, originator_version) DO UPDATE SET state = excluded.state",
        organisation.id,
        version,
        codec.topic_of[type(event)],
        codec.encode(event),
    )


CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"


def test_a_command_survives_a_restart_of_the_database(
    opened: Ledger, sql: Any, migrated_database: str
) -> None:
    sql(CUT, conninfo_to_dict(migrated_database)["dbname"])
    assert grant(opened, 50).value.balance == 250


def test_an_unavailable_database_that_recovers(opened: Ledger, migrated_database: str) -> None:
    name = str(conninfo_to_dict(migrated_database)["dbname"])
    allow = SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(make_conninfo(migrated_database, dbname="postgres"), autocommit=True) as elsewhere:
        elsewhere.execute(allow.format(Identifier(name), SQL("false")))
        try:
            elsewhere.execute(CUT, [name])
            with pytest.raises(StoreUnavailable, match="the database does not answer"):
                grant(opened, 50, idempotency_key=idempotency_key())
        finally:
            elsewhere.execute(allow.format(Identifier(name), SQL("true")))
    deadline = monotonic() + RECOVERS_WITHIN_S
    while True:  # like a caller who gets the error that the database does not answer
        try:
            answer = grant(opened, 50, idempotency_key=idempotency_key())
        except StoreUnavailable:
            assert monotonic() < deadline
        else:
            break
    assert answer == RecordedResult(recorded(ORG, 3, 250, 50), 3, repeated=False)
