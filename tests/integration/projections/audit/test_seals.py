"""A seal that is stored elsewhere reveals every change of the history, even by a superuser."""

from __future__ import annotations

import hashlib
import struct

import psycopg
import pytest

from projections.audit.seals import ExternalSeal, Seal, check_seals, seal
from tests.histories import Account
from tests.integration.projections.conftest import Ledger


@pytest.fixture
def account(ledger: Ledger) -> Account:
    account = Account(trial_credits=200)
    charge = account.charge(80)
    account.refund(charge, 30)
    ledger.append(account)
    return account


def sealed(ledger: Ledger) -> Seal:
    latest = seal(ledger.connection)
    assert latest is not None
    return latest


def kept(latest: Seal) -> ExternalSeal:
    return ExternalSeal(latest.position, latest.digest)


def recount(rows: list[tuple]) -> bytes:
    """Return the last link, computed from the rows alone, as the chain's documentation describes."""
    link = b"\0" * 32
    for position, stream, version, key, refers_to, topic, state in rows:
        row = struct.pack(">q16sq", position, stream.bytes, version)
        row += b"\0" if key is None else b"\1" + key.bytes
        row += b"\0" if refers_to is None else b"\1" + struct.pack(">q", refers_to)
        row += struct.pack(">i", len(topic.encode())) + topic.encode() + state
        link = hashlib.sha256(link + row).digest()
    return link


def test_a_seal_matches_its_description(ledger: Ledger, account: Account) -> None:
    rows = ledger.connection.execute(
        "SELECT notification_id, originator_id, originator_version, dedupe_key, refers_to, topic, state"
        " FROM ledger.events ORDER BY notification_id"
    ).fetchall()
    assert sealed(ledger) == Seal(rows[-1][0], len(rows), recount(rows))


def test_an_empty_log_has_no_seal(ledger: Ledger) -> None:
    assert seal(ledger.connection) is None
    assert check_seals(ledger.connection) == []


def test_sealing_again_resumes_at_the_last_seal(ledger: Ledger, account: Account) -> None:
    first = sealed(ledger)
    assert sealed(ledger) == first
    account.charge(5)
    ledger.append(account)
    second = sealed(ledger)
    assert (second.events, second.position > first.position) == (first.events + 1, True)
    assert check_seals(ledger.connection, [kept(first), kept(second)]) == []


def test_sealing_in_pieces_makes_no_difference(
    ledger: Ledger, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.audit.seals._PAGE", 2)
    small = sealed(ledger)
    monkeypatch.undo()
    assert check_seals(ledger.connection, [kept(small)]) == []


@pytest.mark.parametrize(
    "forgery",
    [
        "UPDATE ledger.events SET state = replace(convert_from(state, 'UTF8'), '80', '81')::bytea"
        " WHERE topic = 'usage_charged.v1'",
        "DELETE FROM ledger.events WHERE topic = 'charge_refunded.v1'",
        "UPDATE ledger.events SET dedupe_key = gen_random_uuid() WHERE topic = 'usage_charged.v1'",
        "UPDATE ledger.events SET notification_id = notification_id + 100",
        "INSERT INTO ledger.events (originator_id, originator_version, notification_id, topic, state)"
        " VALUES (gen_random_uuid(), 1, 0, 'price_changed.v1', '')",
    ],
)
@pytest.mark.parametrize("seals", ["left alone", "taken away", "made anew"])
def test_changes_by_a_superuser_are_found(ledger: Ledger, account: Account, forgery: str, seals: str) -> None:
    before = kept(sealed(ledger))
    forge(ledger, forgery, cover_up=seals != "left alone")
    if seals == "made anew":
        seal(ledger.connection)

    found = check_seals(ledger.connection, [before])
    assert [finding.check for finding in found] == ["seal"]
    assert found[0].detail.startswith(str(before))


def test_seals_in_the_database_reveal_changes_that_do_not_update_them(
    ledger: Ledger, account: Account
) -> None:
    sealed(ledger)
    forge(ledger, "DELETE FROM ledger.events WHERE topic = 'charge_refunded.v1'", cover_up=False)
    assert [finding.check for finding in check_seals(ledger.connection)] == ["seal"]


def test_the_log_may_grow_after_a_seal(ledger: Ledger, account: Account) -> None:
    before = kept(sealed(ledger))
    account.charge(7)
    ledger.append(account)
    assert check_seals(ledger.connection, [before]) == []


@pytest.mark.parametrize("change", ["UPDATE ledger.seals SET events = 0", "DELETE FROM ledger.seals"])
def test_seals_cannot_be_changed(ledger: Ledger, account: Account, change: str) -> None:
    sealed(ledger)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="facts"):
        ledger.connection.execute(change.encode())


def test_the_service_may_seal_and_check(ledger: Ledger, account: Account) -> None:
    with psycopg.connect(ledger.service, autocommit=True) as connection:
        assert seal(connection) is not None
        assert check_seals(connection) == []


@pytest.mark.parametrize("text", ["", "7", "7:abc", "x:" + "0" * 64, "7:" + "g" * 64, "-7:" + "0" * 64])
def test_an_invalid_seal(text: str) -> None:
    with pytest.raises(ValueError, match=r"seal|hexadecimal"):
        ExternalSeal.parse(text)


def forge(ledger: Ledger, change: str, *, cover_up: bool) -> None:
    for statement in (
        "ALTER TABLE ledger.events DISABLE TRIGGER events_are_facts",
        change,
        "ALTER TABLE ledger.events ENABLE ALWAYS TRIGGER events_are_facts",
        *(
            ["ALTER TABLE ledger.seals DISABLE TRIGGER seals_are_facts", "DELETE FROM ledger.seals"]
            * cover_up
        ),
    ):
        ledger.connection.execute(statement.encode())
