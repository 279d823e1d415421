"""One log contains several aggregates: readers of organisations' histories skip the others."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec
import psycopg
import pytest

from consumers.publishing.feeds import BalanceFeed, EventFeed
from domain.event_catalogue import (
    ORGANISATION_EVENT_CLASSES,
    ORGANISATION_EVENT_TYPES,
    PAYMENT_EVENT_TYPES,
)
from domain.payments.events import PaymentCompleted
from domain.shared.aggregate import EventEnvelope
from domain.shared.stream_keys import payment_stream, stream_id
from infra.event_store.replay import replay_log
from projections.audit import invariants
from projections.credits import balance
from tests.histories import CODEC, Account
from tests.integration.projections.conftest import Ledger
from tests.unit.shared.events import EVENTS

_PAYMENT_FACTS = [
    *(EVENTS[topic] for topic in list(PAYMENT_EVENT_TYPES)[:2]),
    msgspec.structs.replace(cast("PaymentCompleted", EVENTS["payment_completed.v1"]), purchase=None),
    *(EVENTS[topic] for topic in list(PAYMENT_EVENT_TYPES)[5:8]),
]
PAYMENT_EVENTS = [
    EventEnvelope(payment_stream("payment-1"), version, event)
    for version, event in enumerate(_PAYMENT_FACTS, 1)
]


@pytest.fixture
def account(ledger: Ledger) -> Account:
    """An organisation. The events of its payment are between its own events."""
    account = Account("org-4711", trial_credits=200)
    ledger.append(account)
    ledger.append_events(PAYMENT_EVENTS[:3])
    account.charge(30)
    ledger.append(account)
    ledger.append_events(PAYMENT_EVENTS[3:])
    del ledger.log[:]
    ledger.log += account.history
    return account


def test_only_events_of_organisations_change_balance_rows() -> None:
    assert balance._FOLDS.keys() == ORGANISATION_EVENT_CLASSES
    assert not ORGANISATION_EVENT_CLASSES & set(PAYMENT_EVENT_TYPES.values())
    assert not ORGANISATION_EVENT_TYPES.keys() & PAYMENT_EVENT_TYPES.keys()


def test_payments_do_not_affect_projections_of_organisations(ledger: Ledger, account: Account) -> None:
    ledger.project(batch_size=2)
    ledger.assert_projected()
    assert ledger.one("SELECT count(*) FROM projections.balances") == 1
    assert ledger.one("SELECT version FROM projections.balances") == account.organisation.version


def test_checks_of_the_log_replay_organisations_only(ledger: Ledger, account: Account) -> None:
    ledger.project()
    assert invariants.check(ledger.connection) == []


def test_the_whole_log_replays_to_organisations(ledger: Ledger, account: Account) -> None:
    replayed = replay_log(ledger.connection, CODEC)
    assert replayed.organisations.keys() == {stream_id("org-4711")}
    assert replayed.organisations[stream_id("org-4711")].balance == 170
    assert replayed.events == len(account.history) + len(PAYMENT_EVENTS)


def test_events_of_payments_are_published_with_their_organisation(ledger: Ledger, account: Account) -> None:
    sent = [json.loads(value) for value in _messages(EventFeed("events"), ledger.connection)]
    assert len(sent) == len(account.history) + len(PAYMENT_EVENTS)
    assert {message["subject"] for message in sent} == {"org-4711"}
    of_payment = [message for message in sent if ".payment_" in message["type"]]
    assert [message["id"] for message in of_payment] == [
        f"{payment_stream('payment-1')}/{version}" for version in range(1, len(PAYMENT_EVENTS) + 1)
    ]


def test_a_payment_publishes_no_balance(ledger: Ledger, account: Account) -> None:
    ledger.project()
    feed = BalanceFeed("balances")
    position = ledger.one("SELECT max(notification_id) FROM ledger.events") - len(PAYMENT_EVENTS[3:])
    assert len(list(_messages(feed, ledger.connection))) == 1
    assert list(_messages(feed, ledger.connection, after=position)) == []


def test_every_event_of_another_aggregate_has_its_organisation_id() -> None:
    for topic in PAYMENT_EVENT_TYPES:
        assert msgspec.structs.asdict(EVENTS[topic])["organisation_id"] == "org-4711"  # type: ignore[arg-type]


def _messages(feed: Any, connection: psycopg.Connection[Any], after: int = 0) -> Any:
    allocation = feed.read_after(connection, after, feed.end_position(connection))
    return [value for batch in allocation.batches for _, value in batch]
