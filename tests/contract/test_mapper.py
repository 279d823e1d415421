"""The mapper's two ways of writing rows are equivalent, and rows are read back unchanged."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from domain.credits.events import CreditsPurchased, UsageCharged
from domain.credits.lots import LotAllocation
from domain.shared.aggregate import EventEnvelope
from domain.shared.stream_keys import dedupe_key
from infra.event_store.datastore import LedgerDatastore
from infra.event_store.mapper import KeyedStoredEvent, LedgerMapper, copy_rows, dedupe_key_of
from infra.event_store.recorder import COPY_EVENTS, LedgerRecorder
from tests.histories import Account

MAPPER = LedgerMapper()

NAMES = ["City Marathon 2026", "", 'a "quoted" \\ name', "组织 🏃 ünïcode", "x" * 256, "\x7f\u2028"]


def charges() -> list[EventEnvelope]:
    """Charges of every shape: names, empty users, fractions, several lots, overdraft, zero credits."""
    first, second = Account("org-1", trial_credits=5), Account("org-2", time_zone="Asia/Kolkata")
    first.grant(7)
    found = [first.charge(number, event_name=name) for number, name in enumerate(NAMES)]
    found.append(second.charge(33, rate_millionths=100_000, user=None))
    found.append(first.charge(1_000_000, event_id=2**53 - 1))
    found.append(second.charge(0, event_id=0, run_id="r" * 128))
    return found


def whole_history() -> list[EventEnvelope]:
    account = Account("org-3", trial_credits=20)
    charge = account.charge(15)
    account.grant(100)
    account.purchase(50)
    account.refund(charge, 5)
    return account.collect()


def charge_rows(events: Sequence[EventEnvelope]) -> bytes:
    keys = [key for envelope in events if (key := dedupe_key_of(envelope))]
    return MAPPER.charge_rows(events, keys)


@pytest.fixture
def connection(migrated_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def recorder(service_database: str) -> Iterator[LedgerRecorder]:
    datastore = LedgerDatastore(service_database, pool_size=1)
    yield LedgerRecorder(datastore, events_table_name="events")
    datastore.close()


def copy_in(connection: psycopg.Connection[Any], payload: bytes) -> None:
    with connection.cursor() as cursor, cursor.copy(COPY_EVENTS) as copy:
        copy.write(payload)


def test_the_charges_cover_every_shape() -> None:
    recorded = [envelope.event for envelope in charges()]
    assert all(isinstance(event, UsageCharged) for event in recorded)
    assert any(len(event.draws) > 1 for event in recorded)  # type: ignore[attr-defined]
    assert any(event.overdraft for event in recorded)  # type: ignore[attr-defined]
    assert any(event.draws == () for event in recorded)  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [0, 1, len(charges())])
def test_bulk_and_single_rows_are_equal_byte_for_byte(count: int) -> None:
    events = charges()[:count]
    assert charge_rows(events) == copy_rows([MAPPER.to_stored_event(envelope) for envelope in events])


def test_keys_must_match_charges() -> None:
    events = charges()
    with pytest.raises(struct.error):
        MAPPER.charge_rows(events, [b"k" * 16])
    with pytest.raises(ValueError, match="more keys"):
        MAPPER.charge_rows(events[:1], [b"k" * 16] * 2)


def test_rows_read_back_equal_the_events(
    connection: psycopg.Connection[Any], recorder: LedgerRecorder
) -> None:
    events = [*charges(), *whole_history()]
    copy_in(connection, charge_rows(charges_alone := events[: len(charges())]))
    copy_in(
        connection, copy_rows([MAPPER.to_stored_event(envelope) for envelope in events[len(charges_alone) :]])
    )
    read = [
        MAPPER.to_domain_event(stored)
        for stream in dict.fromkeys(envelope.originator_id for envelope in events)
        for stored in recorder.select_events(stream)
    ]
    assert sorted(read, key=_place) == sorted(events, key=_place)


def test_columns_match_the_event(connection: psycopg.Connection[Any]) -> None:
    events = whole_history()
    copy_in(connection, copy_rows([MAPPER.to_stored_event(envelope) for envelope in events]))
    rows = connection.execute(
        "SELECT originator_version, topic, dedupe_key, refers_to FROM ledger.events ORDER BY 1"
    ).fetchall()
    assert [topic for _, topic, _, _ in rows] == [
        *("organisation_opened.v1", "credits_granted.v1", "usage_charged.v1", "credits_granted.v1"),
        *("credits_purchased.v1", "plan_changed.v1", "charge_refunded.v1"),
    ]
    keyed = {version: key.bytes for version, _, key, _ in rows if key is not None}
    charge = events[2].event
    assert isinstance(charge, UsageCharged)
    assert keyed == {3: dedupe_key(charge.source, charge.cause), 5: dedupe_key_of(events[4])}
    assert [(version, refers_to) for version, _, _, refers_to in rows if refers_to] == [(7, 3)]


def test_no_message_has_the_dedupe_key_of_a_payment() -> None:
    envelope = whole_history()[4]
    purchase = envelope.event
    assert isinstance(purchase, CreditsPurchased)
    for source in (f"payment:{purchase.gateway}", f"payment{purchase.gateway}", purchase.gateway, "payment"):
        for message_id in (purchase.payment_id, f"{purchase.gateway}{purchase.payment_id}"):
            assert dedupe_key(source, message_id) != dedupe_key_of(envelope)


def test_a_plain_stored_event_has_no_key() -> None:
    envelope = whole_history()[0]
    stored = MAPPER.to_stored_event(envelope)
    assert isinstance(stored, KeyedStoredEvent)
    assert (stored.dedupe_key, stored.refers_to) == (None, None)
    assert MAPPER.to_domain_event(stored) == envelope


def test_draws_survive_a_round_trip() -> None:
    envelope = next(envelope for envelope in charges() if len(envelope.event.draws) > 1)  # type: ignore[attr-defined]
    event = MAPPER.to_domain_event(MAPPER.to_stored_event(envelope)).event
    assert isinstance(event, UsageCharged)
    assert all(isinstance(allocation, LotAllocation) for allocation in event.draws)


def _place(envelope: EventEnvelope) -> tuple[bytes, int]:
    return envelope.originator_id.bytes, envelope.originator_version
