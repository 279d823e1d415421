"""Recounts the ledger from its rows. Shares no code with the product."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

Identity = tuple[str, str]
CROSSINGS = ("credits_exhausted.v1", "credits_replenished.v1", "balance_went_low.v1")
"""Topics of balance crossings, which change nothing."""


class Charge(NamedTuple):
    """A charge, read from its row."""

    organisation_id: str
    version: int
    identity: Identity
    """CloudEvents source and id."""
    run_id: str
    usage_type: str
    photos: int
    ai_search: bool
    event_id: int
    credits: int
    rate_millionths: int

    @property
    def charge_fingerprint(self) -> tuple[Any, ...]:
        """The fields that must be equal in a repeat."""
        return (
            *(self.organisation_id, self.run_id, self.usage_type),
            *(self.photos, self.ai_search, self.event_id),
        )


class RecountedLedger(NamedTuple):
    """The contents of the log."""

    charges: list[Charge]
    balances: dict[str, int]
    versions: dict[str, int]

    def charged(self) -> dict[Identity, Charge]:
        return {charge.identity: charge for charge in self.charges}


def recount_ledger(connection: psycopg.Connection[Any], *, after: int = 0) -> RecountedLedger:
    """Read the log, and check the invariants of every log.

    Versions have no gap and follow the order of the log. No identity is charged twice. The credits of a
    charge equal its draws and its overdraft. A fraction of a credit is rounded up once per run.
    """
    names: dict[UUID, str] = {}
    versions: dict[UUID, int] = defaultdict(int)
    balances: dict[UUID, int] = defaultdict(int)
    runs: dict[tuple[UUID, str, str, int], list[int]] = defaultdict(lambda: [0, 0])
    charges: list[Charge] = []
    rows = connection.execute(
        "SELECT originator_id, originator_version, topic, state FROM ledger.events"
        " WHERE notification_id > %s ORDER BY notification_id",
        (after,),
    )
    for stream, version, topic, state in rows:
        assert version == versions[stream] + 1
        versions[stream] = version
        event = json.loads(state)
        if topic == "organisation_opened.v1":
            names[stream] = event[3]
        elif topic == "credits_granted.v1":
            balances[stream] += event[3]
        elif topic == "usage_charged.v1":
            _, _, message_id, source, run_id, usage_type, photos, ai_search, rate, credits_count, *rest = (
                event
            )
            draws, overdraft, event_id = rest[:3]
            assert sum(drawn for _, drawn in draws) + overdraft == credits_count
            balances[stream] -= credits_count
            run = runs[stream, run_id, usage_type, rate]
            run[0] += photos
            run[1] += credits_count
            assert run[1] == -(-run[0] * rate // 1_000_000)
            charges.append(
                Charge(
                    names[stream],
                    version,
                    (source, message_id),
                    run_id,
                    usage_type,
                    photos,
                    ai_search,
                    event_id,
                    credits_count,
                    rate,
                )
            )
        elif topic not in CROSSINGS:
            raise AssertionError(f"unexpected {topic}")
    repeated = [identity for identity, times in Counter(c.identity for c in charges).items() if times > 1]
    assert not repeated
    return RecountedLedger(
        charges,
        {names[stream]: balance for stream, balance in balances.items()},
        {names[stream]: version for stream, version in versions.items()},
    )
