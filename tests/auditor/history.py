"""Reads the event store as rows of plain JSON, and compares it with the messages.

Charges of an organisation have the order of its partition. Only an organisation that opened during the
traffic may differ: parked messages keep their order, later messages keep theirs, but the two may mix.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from tests.auditor.accounts import Account, Rates
from tests.auditor.differences import compare_rows
from tests.auditor.lots import FREE, PAID, Lots
from tests.auditor.statement_rows import Charge, Row, Statement, Table, charges_of
from tests.auditor.verdicts import Accepted, Place

_EVENTS = """
    SELECT originator_id, originator_version, notification_id, dedupe_key, topic, state
    FROM ledger.events WHERE topic !~ '^(payment|invoice|credit_note)_'
    ORDER BY originator_id, originator_version
"""
_LOG_END = "SELECT coalesce(max(notification_id), 0) FROM ledger.events"
_SNAPSHOTS = "SELECT originator_id, originator_version, state FROM ledger.snapshots"

_CHARGED = "usage_charged.v1"
_ADDITIONS = ("credits_granted.v1", "credits_purchased.v1")
_CROSSINGS = {"credits_exhausted.v1": (True, False), "credits_replenished.v1": (False, True)}
"""Whether processing was allowed before and after an event."""
_GRANT_KINDS = {"trial": "free_credits", "promotional": "free_credits", "admin": "admin_grant"}
_SNAPSHOT_LOTS, _SNAPSHOT_OVERDRAFT = 7, 8


class StoredEvent(NamedTuple):
    """A row of the event store; `event` is its JSON array."""

    version: int
    position: int
    dedupe_key: UUID | None
    topic: str
    event: list[Any]

    @property
    def identity(self) -> tuple[str, str]:
        """Source and id of a charge's message."""
        return (self.event[3], self.event[2])

    @property
    def recorded_at(self) -> datetime:
        return datetime.fromisoformat(self.event[0])


def read_histories(connection: psycopg.Connection[Any]) -> dict[UUID, list[StoredEvent]]:
    """Return the events of organisations by stream, in order. Events of other aggregates are ignored."""
    histories: dict[UUID, list[StoredEvent]] = {}
    for stream, version, position, key, topic, state in connection.execute(_EVENTS):
        histories.setdefault(stream, []).append(
            StoredEvent(version, position, key, topic, json.loads(bytes(state)))
        )
    return histories


def read_log_end(connection: psycopg.Connection[Any]) -> int:
    """Return the position of the last event."""
    row = connection.execute(_LOG_END).fetchone()
    assert row is not None
    return int(row[0])


def read_snapshots(connection: psycopg.Connection[Any]) -> dict[tuple[UUID, int], list[Any]]:
    """Return all snapshots, as JSON arrays, by stream and version."""
    return {
        (stream, version): json.loads(bytes(state))
        for stream, version, state in connection.execute(_SNAPSHOTS)
    }


@dataclass
class HistoryAudit:
    """One organisation's history, compared with its messages and additions.

    Call `run`; then `differences` lists what is wrong, and the other fields are the expected rows of the
    tables.
    """

    account: Account
    accepted: Sequence[Accepted]
    events: Sequence[StoredEvent]
    snapshots: dict[int, list[Any]]
    rates: Rates
    differences: list[str] = field(default_factory=list)
    additions: Table = field(default_factory=dict)
    lots: Lots = field(default_factory=Lots)
    plan: str = "trial"
    charged: int = 0

    def run(self, statement: Statement) -> None:
        """Check everything and add the organisation's usage to the statement."""
        self._check_frame()
        by_identity = {accepted.message.identity: accepted for accepted in self.accepted}
        found = self._known_charges(by_identity)
        in_order = [by_identity[envelope.identity] for envelope in found]
        self._check_order([accepted.place for accepted in in_order])
        messages = [accepted.message for accepted in in_order]
        charges = charges_of(messages, self.account.time_zone, self.rates)
        for envelope, charge in zip(found, charges, strict=True):
            self._check_charge(envelope, charge)
        self._replay()
        self._check_crossings()
        self._add_to(statement, found, charges)

    @property
    def balance_row(self) -> Row:
        """The expected row of the table of balances."""
        purchased = sum(each.credits for each in self.account.additions if each.kind == "purchase")
        granted = sum(each.credits for each in self.account.additions) - purchased
        return {
            "organisation_id": self.account.organisation_id,
            "balance": granted + purchased - self.charged,
            "granted": granted,
            "purchased": purchased,
            "refunded": 0,
            "charged": self.charged,
            "plan": self.plan,
            "time_zone": self.account.time_zone,
            "version": len(self.events),
            "position": max(envelope.position for envelope in self.events),
        }

    def _report(self, what: str) -> None:
        self.differences.append(f"history of {self.account.organisation_id}: {what}")

    def _check_frame(self) -> None:
        versions = [envelope.version for envelope in self.events]
        if versions != list(range(1, len(versions) + 1)):
            self._report("versions have gaps or repeat")
        if sorted(envelope.position for envelope in self.events) != [
            envelope.position for envelope in self.events
        ]:
            self._report("positions in the log do not follow the versions")
        opened = self.events[0]
        if opened.topic != "organisation_opened.v1" or opened.event[4] != self.account.time_zone:
            self._report(f"begins with {opened.topic} {opened.event}")
        for version in self.snapshots.keys() - set(versions):
            self._report(f"snapshot of version {version}, which does not exist")

    def _known_charges(self, by_identity: dict[tuple[str, str], Accepted]) -> list[StoredEvent]:
        known: dict[tuple[str, str], StoredEvent] = {}
        for envelope in self.events:
            if envelope.topic != _CHARGED:
                continue
            if envelope.identity not in by_identity:
                self._report(
                    f"charge {envelope.version} for {envelope.identity}, which nobody may be charged for"
                )
            elif envelope.identity in known:
                self._report(f"charge {envelope.version} for {envelope.identity}, a second one")
            else:
                known[envelope.identity] = envelope
        for identity in by_identity.keys() - known.keys():
            self._report(f"no charge for {identity} at {by_identity[identity].place}")
        return list(known.values())

    def _check_order(self, places: Sequence[Place]) -> None:
        overtaken, overtaking = inversions(places)
        if not overtaken:
            return
        # It opened late: all parked messages precede all messages that were charged before them.
        if not self.account.opened_in_the_middle or max(overtaken) >= min(overtaking):
            self._report(f"charges are not in the order of the log: {min(overtaken)} was overtaken")

    def _check_charge(self, envelope: StoredEvent, charge: Charge) -> None:
        message, event = charge.message, envelope.event
        found = dict(zip(_CHARGE_FIELDS, event, strict=True)) | {
            "occurred_at": datetime.fromisoformat(event[14]),
            "dedupe_key": envelope.dedupe_key,
        }
        expected = {
            "actor": message.user,
            "run_id": message.run_id,
            "usage_type": message.usage_type,
            "photos": message.photos,
            "ai_search": message.ai_search,
            "rate": charge.rate,
            "credits": charge.credits,
            "event_id": message.event_id,
            "event_name": message.event_name,
            "occurred_at": message.occurred_at,
            "day": charge.day.isoformat(),
            "hold_id": message.hold_id,
            "settled": 0,
            "from_hold": 0,
            "dedupe_key": key_of(message.source, message.id),
        }
        name = f"history of {self.account.organisation_id}: charge {envelope.version}"
        self.differences += compare_rows(name, expected, found)

    def _replay(self) -> None:
        """Recompute lots and additions in the order of the history."""
        added: Counter[tuple[str, int]] = Counter()
        for envelope in self.events:
            event = envelope.event
            match envelope.topic:
                case "usage_charged.v1":
                    self.charged += event[9]
                    self._expect(envelope, "draws", [event[10], event[11]], list(self.lots.charge(event[9])))
                case "credits_exhausted.v1" | "credits_replenished.v1":
                    pass
                case "credits_granted.v1":
                    added[_GRANT_KINDS[event[4]], event[3]] += 1
                    self._expect(
                        envelope, "covered", event[6], self.lots.add(envelope.version, FREE, event[3])
                    )
                    self._add_row(envelope, _GRANT_KINDS[event[4]])
                case "credits_purchased.v1":
                    added["purchase", event[3]] += 1
                    self._expect(
                        envelope, "covered", event[11], self.lots.add(envelope.version, PAID, event[3])
                    )
                    self._add_row(envelope, "purchase")
                case "plan_changed.v1":
                    self.plan = event[3]
                case "organisation_opened.v1" if envelope.version == 1:
                    pass
                case _:
                    self._report(f"event {envelope.version} is a {envelope.topic} that nobody asked for")
            if envelope.version in self.snapshots:
                self._check_snapshot(envelope, self.snapshots[envelope.version])
        expected_plan = "pay_as_you_go" if any(kind == "purchase" for kind, _ in added) else "trial"
        if self.plan != expected_plan:
            self._report(f"the plan is {self.plan}")
        asked = Counter((each.kind, each.credits) for each in self.account.additions)
        if added != asked:
            self._report(f"additions {dict(added - asked)} too many, {dict(asked - added)} too few")

    def _check_crossings(self) -> None:
        """Check that every crossing of zero has one event, with the available credits at that moment."""
        balance, allowed = 0, True
        for envelope in self.events:
            if envelope.topic == _CHARGED:
                balance -= envelope.event[9]
            elif envelope.topic in _ADDITIONS:
                balance += envelope.event[3]
            elif envelope.topic in _CROSSINGS:
                self._expect(envelope, "available", envelope.event[3], balance)
                self._expect(envelope, "crossing", _CROSSINGS[envelope.topic], (allowed, balance > 0))
                allowed = balance > 0
            if envelope.version == 1 or envelope.event[4:5] == [
                "trial"
            ]:  # the opening credits are no crossing
                allowed = balance > 0
        if allowed != (balance > 0):
            self._report("the last crossing of zero is not marked")

    def _check_snapshot(self, envelope: StoredEvent, snapshot: list[Any]) -> None:
        found = [sorted(snapshot[_SNAPSHOT_LOTS]), snapshot[_SNAPSHOT_OVERDRAFT]]
        self._expect(envelope, "snapshot", found, [self.lots.held, self.lots.overdraft])

    def _expect(self, envelope: StoredEvent, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            self._report(f"event {envelope.version}: {what} is {found}, expected {expected}")

    def _add_row(self, envelope: StoredEvent, kind: str) -> None:
        self.additions[self.account.organisation_id, str(envelope.version)] = {
            "type": kind,
            "credits": envelope.event[3],
            "occurred_at": envelope.recorded_at,
            "recorded_at": envelope.recorded_at,
            "actor": envelope.event[1],
            "first_version": envelope.version,
            "last_version": envelope.version,
        }

    def _add_to(self, statement: Statement, found: Sequence[StoredEvent], charges: Sequence[Charge]) -> None:
        name = self.account.organisation_id
        statement.add(name, charges)
        for envelope, charge in zip(found, charges, strict=True):
            if charge.counts:
                row = statement.runs[name, charge.message.run_id]
                row.setdefault("first_version", envelope.version)
                row.setdefault("recorded_at", envelope.recorded_at)
                row["last_version"] = envelope.version


_CHARGE_FIELDS = (
    *("recorded_at", "actor", "id", "source", "run_id", "usage_type", "photos", "ai_search", "rate"),
    *("credits", "draws", "overdraft", "event_id", "event_name", "occurred_at", "day", "hold_id"),
    *("settled", "from_hold"),
)


def key_of(source: str, message_id: str) -> UUID:
    """Return the dedupe key of a message: for a UUID it starts with the first six bytes of the id."""
    identity = f"{source}\0{message_id}".encode()
    try:
        canonical = str(UUID(message_id)) == message_id.lower()
    except ValueError:
        canonical = False
    if not canonical:
        return UUID(bytes=blake2b(identity, digest_size=16).digest())
    return UUID(bytes=UUID(message_id).bytes[:6] + blake2b(identity, digest_size=10).digest())


def inversions(places: Sequence[Place]) -> tuple[set[Place], set[Place]]:
    """Return the places that a later one precedes, and the places that precede an earlier one."""
    overtaken, overtaking = set(), set()
    highest = (-1, -1)
    for place in places:
        if place < highest:
            overtaken.add(place)
        highest = max(highest, place)
    lowest = (1 << 62, 0)
    for place in reversed(places):
        if place > lowest:
            overtaking.add(place)
        lowest = min(lowest, place)
    return overtaken, overtaking
