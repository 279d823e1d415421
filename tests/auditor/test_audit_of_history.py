"""Tests of the auditor: it finds every error in the event store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.auditor.accounts import Addition, Rates
from tests.auditor.audit import Auditor
from tests.auditor.conftest import Case, Connection
from tests.e2e.in_process import TOPIC
from tests.e2e.traffic import RATE_CHANGES


def change_event(connection: Connection, table: str, index: int, value: str, where: str) -> None:
    """Set one element of the first stored event that `where` finds to an SQL expression of `old`."""
    connection.execute("ALTER TABLE ledger.events DISABLE TRIGGER events_are_facts")
    changed = connection.execute(
        f"""
        UPDATE {table} SET state = (
            SELECT convert_to(jsonb_set(data, '{{{index}}}', to_jsonb({value}))::text, 'UTF8')
            FROM (SELECT convert_from(state, 'UTF8')::jsonb AS data) AS f,
                LATERAL (SELECT data -> {index} AS old) AS o)
        WHERE (originator_id, originator_version) = (
            SELECT originator_id, originator_version FROM {table} WHERE {where}
            ORDER BY 1, 2 LIMIT 1)
        """
    )
    assert changed.rowcount == 1


CHARGES = "topic = 'usage_charged.v1' AND convert_from(state, 'UTF8')::jsonb ->> 9 > '0'"


@pytest.mark.parametrize(
    ("what", "index", "value"),
    [
        ("actor", 1, "'someone'::text"),
        ("run_id", 4, "'run-other'::text"),
        ("usage_type", 5, "'teleportation'::text"),
        ("photos", 6, "old::bigint + 1"),
        ("ai_search", 7, "NOT old::bool"),
        ("rate", 8, "old::bigint + 1"),
        ("credits", 9, "old::bigint + 1"),
        ("draws", 10, "old || '[[1, 1]]'::jsonb"),
        ("draws", 11, "old::bigint + 1"),
        ("event_id", 12, "old::bigint + 1"),
        ("event_name", 13, "'Village Fair'::text"),
        ("occurred_at", 14, "'2026-08-01T00:00:00Z'::text"),
        ("day", 15, "'2025-01-01'::text"),
        ("hold_id", 16, "'hold-2'::text"),
    ],
)
def test_it_notices_a_wrong_charge(
    case: Case, connection: Connection, what: str, index: int, value: str
) -> None:
    change_event(connection, "ledger.events", index, value, CHARGES)
    differences = case.auditor.differences(connection, case.ingested.letters)
    assert any(each.startswith("history of ") and f"{what} is " in each for each in differences)


@pytest.mark.parametrize(("index", "what"), [(2, "nobody may be charged for"), (3, "no charge for")])
def test_it_notices_a_charge_for_another_message(
    case: Case, connection: Connection, index: int, what: str
) -> None:
    change_event(connection, "ledger.events", index, "'other'::text", CHARGES)
    differences = case.auditor.differences(connection, case.ingested.letters)
    assert any(what in each for each in differences)


def test_it_notices_a_wrong_addition(case: Case, connection: Connection) -> None:
    change_event(connection, "ledger.events", 3, "old::bigint + 1", "topic = 'credits_granted.v1'")
    differences = case.auditor.differences(connection, case.ingested.letters)
    assert any("too many" in each for each in differences)


def test_it_notices_an_overdraft_that_was_not_paid(case: Case, connection: Connection) -> None:
    change_event(connection, "ledger.events", 6, "old::bigint + 1", "topic = 'credits_granted.v1'")
    differences = case.auditor.differences(connection, case.ingested.letters)
    assert [each for each in differences if ": covered is " in each]


def test_it_notices_a_wrong_plan(case: Case, connection: Connection) -> None:
    change_event(connection, "ledger.events", 3, "'pro'::text", "topic = 'plan_changed.v1'")
    differences = case.auditor.differences(connection, case.ingested.letters)
    assert [each for each in differences if "the plan is pro" in each]


def test_it_notices_a_wrong_zone(case: Case, connection: Connection) -> None:
    change_event(connection, "ledger.events", 4, "'Asia/Tokyo'::text", "topic = 'organisation_opened.v1'")
    differences = case.auditor.differences(connection, case.ingested.letters)
    assert [each for each in differences if "begins with" in each]


def test_it_notices_a_wrong_snapshot(case: Case, connection: Connection) -> None:
    change_event(connection, "ledger.snapshots", 8, "old::bigint + 1", "true")
    (difference,) = case.auditor.differences(connection, case.ingested.letters)
    assert ": snapshot is " in difference


def test_it_notices_a_snapshot_of_the_future(case: Case, connection: Connection) -> None:
    connection.execute(
        "UPDATE ledger.snapshots SET originator_version = 1000000"
        " WHERE ctid = (SELECT ctid FROM ledger.snapshots LIMIT 1)"
    )
    (difference,) = case.auditor.differences(connection, case.ingested.letters)
    assert "which does not exist" in difference


CHARGED_TWICE = """
    INSERT INTO ledger.events (originator_id, originator_version, topic, state)
    SELECT originator_id, (SELECT max(originator_version) + 1 FROM ledger.events AS all_of
        WHERE all_of.originator_id = existing.originator_id), topic, state
    FROM ledger.events AS existing WHERE topic = 'usage_charged.v1' LIMIT 1
"""
NEVER_CHARGED = """
    DELETE FROM ledger.events WHERE ctid = (
        SELECT ctid FROM ledger.events WHERE topic = 'usage_charged.v1'
        ORDER BY originator_version DESC LIMIT 1)
"""
OTHER_KEY = """
    UPDATE ledger.events SET dedupe_key = gen_random_uuid() WHERE ctid = (
        SELECT ctid FROM ledger.events WHERE topic = 'usage_charged.v1' LIMIT 1)
"""
TURNED_ROUND = """
    UPDATE ledger.events SET notification_id = -notification_id WHERE ctid = (
        SELECT ctid FROM ledger.events WHERE topic = 'usage_charged.v1' LIMIT 1)
"""
UNASKED = """
    INSERT INTO ledger.events (originator_id, originator_version, topic, state)
    SELECT originator_id, (SELECT max(originator_version) + 1 FROM ledger.events AS all_of
        WHERE all_of.originator_id = existing.originator_id), 'price_changed.v1',
        convert_to('["2026-11-22T09:15:00Z", null, "request-1", 1]', 'UTF8')
    FROM ledger.events AS existing LIMIT 1
"""
MADE_UP = """
    INSERT INTO ledger.events (originator_id, originator_version, topic, state)
    SELECT gen_random_uuid(), 1, topic,
        convert_to(replace(convert_from(state, 'UTF8'), 'org-', 'new-'), 'UTF8')
    FROM ledger.events WHERE topic = 'organisation_opened.v1' LIMIT 1
"""
OPENED_TWICE = """
    INSERT INTO ledger.events (originator_id, originator_version, topic, state)
    SELECT gen_random_uuid(), 1, topic, state
    FROM ledger.events WHERE topic = 'organisation_opened.v1' LIMIT 1
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(CHARGED_TWICE, "a second one", id="charged twice"),
        pytest.param(NEVER_CHARGED, "no charge for", id="never charged"),
        pytest.param(OTHER_KEY, "dedupe_key is", id="under another key"),
        pytest.param(TURNED_ROUND, "do not follow the versions", id="out of order in the log"),
        pytest.param(UNASKED, "that nobody asked for", id="an event nobody asked for"),
        pytest.param(MADE_UP, "nobody opened it", id="an organisation nobody opened"),
        pytest.param(OPENED_TWICE, "there are two", id="an organisation opened twice"),
    ],
)
def test_it_notices_a_wrong_history(case: Case, connection: Connection, change: str, words: str) -> None:
    connection.execute("ALTER TABLE ledger.events DISABLE TRIGGER events_are_facts")
    assert connection.execute(change).rowcount == 1
    differences = case.auditor.differences(connection, case.ingested.letters)
    assert [each for each in differences if words in each]


def test_it_notices_charges_out_of_order(case: Case, connection: Connection) -> None:
    """Two charges of one organisation are swapped; everything else is unchanged."""
    connection.execute("ALTER TABLE ledger.events DISABLE TRIGGER events_are_facts")
    swapped = connection.execute("""
        WITH pair AS (
            SELECT originator_id, originator_version, dedupe_key, state,
                row_number() OVER (PARTITION BY originator_id ORDER BY originator_version) AS number,
                count(*) OVER (PARTITION BY originator_id) AS count
            FROM ledger.events WHERE topic = 'usage_charged.v1'),
        chosen AS (
            SELECT one.originator_id AS stream, one.originator_version AS version, other.state
            FROM pair AS one JOIN pair AS other
                ON other.originator_id = one.originator_id AND other.number = 3 - one.number
            WHERE one.number IN (1, 2)
                AND one.originator_id = (SELECT originator_id FROM pair ORDER BY count DESC LIMIT 1))
        UPDATE ledger.events SET state = chosen.state FROM chosen
        WHERE (originator_id, originator_version) = (chosen.stream, chosen.version)
    """)
    assert swapped.rowcount == 2
    differences = case.auditor.differences(connection, case.ingested.letters)
    assert [each for each in differences if "not in the order of the log" in each]


def test_it_notices_a_lost_organisation(case: Case, connection: Connection) -> None:
    connection.execute("ALTER TABLE ledger.events DISABLE TRIGGER events_are_facts")
    connection.execute("""
        DELETE FROM ledger.events WHERE originator_id = (SELECT originator_id FROM ledger.events LIMIT 1)
    """)
    differences = case.auditor.differences(connection, case.ingested.letters)
    assert [each for each in differences if each.startswith("history of ") and each.endswith("is missing")]


def test_it_notices_additions_missing_in_the_ledger(case: Case, connection: Connection) -> None:
    first, *others = case.ingested.accounts
    more = replace(first, additions=(*first.additions, Addition("purchase", 17)))
    auditor = Auditor(TOPIC, case.ingested.records, [more, *others], Rates(RATE_CHANGES))
    differences = auditor.differences(connection, case.ingested.letters)
    assert [each for each in differences if "too few" in each]
