"""Pages of an organisation of many transactions against those of one of few: they should take as long.

The rows are written by SQL, as the projections would leave them; each organisation has a database of its own.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import psycopg

from api.app import create_app
from benchmarks.checks import must_equal
from benchmarks.lab import MIGRATED, Lab, Sample
from benchmarks.organisations import open_organisations
from domain.identity import stream_id
from infra.embedded.issuer import AUDIENCE, ISSUER, EmbeddedIssuer
from infra.identity import TokenVerifier
from infra.jwks import FixedKeys
from infra.serve import api_services
from infra.settings import Settings
from projections.runner import ProjectionRunner

_ORGANISATION: Final = "org-read"
_RUNS_AN_EVENT: Final = 10
"""So few that the month of the smaller one fills a page too."""
_OVER_DAYS: Final = 365
"""Both organisations have months and days alike: one only has more in each."""
_CREDITS_A_RUN: Final = 25

_TRANSACTIONS: Final = """
    INSERT INTO projections.transactions
    SELECT %(stream)s::uuid, 'usage', 'run-' || number, 'usage', -%(credits)s, at, at, 'u-1',
        date_trunc('month', at AT TIME ZONE 'UTC')::date, %(credits)s, '{photo_processing}',
        ARRAY[number / %(runs_an_event)s], 'Event ' || number / %(runs_an_event)s, 3, 3, NULL
    FROM generate_series(0, %(count)s - 1) AS number,
        LATERAL (SELECT %(now)s::timestamptz - number * %(over_days)s * interval '1 day' / %(count)s)
            AS moment (at)
"""
_SUMS: Final = (
    """
    INSERT INTO projections.usage_days
    SELECT stream, (occurred_at AT TIME ZONE 'UTC')::date, month, -sum(credits), sum(photos)
    FROM projections.transactions WHERE kind = 'usage' GROUP BY 1, 2, 3
    """,
    """
    INSERT INTO projections.event_usage
    SELECT stream, month, event_ids[1], min(event_name), -sum(credits), sum(photos), count(*),
        min(occurred_at), max(occurred_at)
    FROM projections.transactions WHERE kind = 'usage' GROUP BY 1, 2, 3
    """,
    """
    INSERT INTO projections.event_totals
    SELECT stream, event_id, min(event_name), sum(credits), sum(photos), sum(runs),
        min(first_occurred_at), max(last_occurred_at)
    FROM projections.event_usage GROUP BY 1, 2
    """,
    """
    INSERT INTO projections.usage_months
    SELECT stream, month, sum(credits), sum(photos), sum(runs), count(*)
    FROM projections.event_usage GROUP BY 1, 2
    """,
)


class PageReads:
    """Two databases, and somebody signed in to the pages of each."""

    def set_up(self, lab: Lab) -> None:
        """Write what the pages read."""
        self._now = datetime.now(UTC)
        self._counts = {"few": lab.sizes.small_ledger, "many": lab.sizes.large_ledger}
        for name, count in self._counts.items():
            database = f"reads_{name}"
            open_organisations(lab.create_database(database, MIGRATED), [_ORGANISATION])
            ProjectionRunner(lab.service_url(database)).catch_up()
            with psycopg.connect(lab.owner_url(database), autocommit=True) as connection:
                self._fill(connection, count)
            lab.tidy(database)

    def measure(self, lab: Lab) -> Sample:
        """Measure every page of both, in turns."""
        issuer = EmbeddedIssuer(lab.directory / "issuer")
        issuer.start()
        took_us: dict[tuple[str, str], list[float]] = {}
        with (
            _browser(lab, issuer, "few") as few,
            _browser(lab, issuer, "many") as many,
            lab.stopwatch() as watch,
        ):
            for _ in range(lab.sizes.page_reads):
                for page, path in self._pages().items():
                    for name, client in (("few", few), ("many", many)):
                        started = time.perf_counter()
                        status = client.get(path)
                        took_us.setdefault((page, name), []).append((time.perf_counter() - started) * 1e6)
                        must_equal(f"status of {path}", status, 200)
        medians = {key: statistics.median(values) for key, values in took_us.items()}
        ratios = {
            f"{page}_many_vs_few": medians[page, "many"] / medians[page, "few"] for page in self._pages()
        }
        reads = sum(len(values) for values in took_us.values())
        return watch.sample(reads, worst_many_vs_few=max(ratios.values()), **ratios)

    def _fill(self, connection: psycopg.Connection[Any], count: int) -> None:
        told = {
            "stream": str(stream_id(_ORGANISATION)),
            "credits": _CREDITS_A_RUN,
            "runs_an_event": _RUNS_AN_EVENT,
            "over_days": _OVER_DAYS,
            "count": count,
            "now": self._now,
        }
        connection.execute(_TRANSACTIONS, told)
        for statement in _SUMS:
            connection.execute(statement.encode())

    def _pages(self) -> Mapping[str, str]:
        return {
            "credits": "/credits",
            "purchases": "/credits?tab=purchases",
            "month": f"/credits/months/{self._now:%Y-%m}",
            "event": "/credits/events/10",
            "balance": "/credits/balance",
        }


class _Browser:
    """A client of an app in this process."""

    def __init__(self, runner: asyncio.Runner, client: httpx.AsyncClient) -> None:
        self._runner = runner
        self._client = client

    def get(self, path: str) -> int:
        """Load a page, and return its status."""
        return self._runner.run(self._client.get(path)).status_code


@contextmanager
def _browser(lab: Lab, issuer: EmbeddedIssuer, name: str) -> Iterator[_Browser]:
    """Lend a browser that is signed in to the pages of a database."""
    settings = Settings(
        embedded_issuer_keys=issuer.published,
        api_requests_per_minute=1_000_000,
        api_organisation_requests_per_minute=1_000_000,
    )
    verifier = TokenVerifier(FixedKeys(issuer.jwks()), issuer=ISSUER, audience=AUDIENCE)
    with (
        api_services(settings, lab.service_url(f"reads_{name}"), verifier) as services,
        asyncio.Runner() as runner,
    ):
        app = httpx.ASGITransport(create_app(services))
        browser = _Browser(runner, httpx.AsyncClient(transport=app, base_url="http://127.0.0.1:8000"))
        ticket = issuer.ticket("u-1", organisations={_ORGANISATION: "member"})
        must_equal("status of signing in", browser.get(f"/sign-in?ticket={ticket}"), 303)
        yield browser
