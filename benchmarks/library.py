"""The baseline: the eventsourcing library as in its documentation, with its own PostgreSQL recorder.

The aggregate stays in memory, and every charge is one `save`: the simplest solution, without
batches, positions or dedupe keys.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from psycopg.conninfo import conninfo_to_dict

from benchmarks.checks import must_equal
from benchmarks.environment import MIGRATED, BenchmarkEnvironment, Sample
from benchmarks.traffic import Traffic


class Organisation(Aggregate):
    """An organisation with credits."""

    @event("Opened")
    def __init__(self, organisation_id: str, credits_count: int) -> None:
        self.organisation_id = organisation_id
        self.balance = credits_count

    @event("UsageCharged")
    def charge(
        self,
        *,
        message_id: str,
        source: str,
        run_id: str,
        usage_type: str,
        photos: int,
        ai_search: bool,
        event_id: int,
        event_name: str,
        user: str,
        credits_count: int,
        occurred_at: datetime,
    ) -> None:
        """Charge usage."""
        self.balance -= credits_count


class LedgerOfTheLibrary(Application[UUID]):
    """A library application that stores organisations."""


def library(bench_env: BenchmarkEnvironment) -> Sample:
    """Measure charges, one save each."""
    records = Traffic(bench_env.organisations).take(bench_env.sizes.library_charges)
    # It connects as the owner: the library creates its own table.
    name = "library"
    with bench_env.database(MIGRATED) as conninfo:
        name = str(conninfo_to_dict(conninfo)["dbname"])
        with LedgerOfTheLibrary(_environment(bench_env.owner_url(name))) as app:
            organisations = {key: Organisation(key, 1_000_000) for key in bench_env.organisations}
            app.save(*organisations.values())
            with bench_env.stopwatch() as watch:
                for record in records:
                    organisation = _charge(organisations, json.loads(record.value))
                    app.save(organisation)
            _check(app, organisations, len(records))
    return watch.sample(len(records))


def _charge(organisations: dict[str, Organisation], message: dict[str, Any]) -> Organisation:
    data = message["data"]
    organisation = organisations[message["subject"]]
    organisation.charge(
        message_id=message["id"],
        source=message["source"],
        run_id=data["run_id"],
        usage_type=data["usage_type"],
        photos=data["photos"],
        ai_search=data["ai_search"],
        event_id=data["event"]["id"],
        event_name=data["event"]["name"],
        user=data["user"]["id"],
        credits_count=data["photos"],
        occurred_at=datetime.fromisoformat(message["time"]),
    )
    return organisation


def _check(app: LedgerOfTheLibrary, organisations: dict[str, Organisation], charges: int) -> None:
    log = app.recorder.max_notification_id()
    must_equal("events of the library", log, len(organisations) + charges)
    for organisation in organisations.values():
        stored: Organisation = app.repository.get(organisation.id)
        must_equal("balance read back", stored.balance, organisation.balance)


def _environment(url: str) -> dict[str, str]:
    options = conninfo_to_dict(url)
    names = ("dbname", "host", "port", "user", "password")
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        **{f"POSTGRES_{name.upper()}": str(options[name]) for name in names},
    }
