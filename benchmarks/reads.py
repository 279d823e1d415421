"""Compares pages of an organisation with many transactions and of one with few: both should take the same
time.

It covers every page that reads growing tables, and for lists also a page from the middle. It does not cover
exports, because these are as long as the history. Each organisation has its own database.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx

from api.app import create_app
from benchmarks.checks import must_equal
from benchmarks.environment import MIGRATED, BenchmarkEnvironment, Sample
from benchmarks.page_rows import ORGANISATION, write_organisation
from infra.embedded.issuer import EmbeddedIssuer
from infra.identity.embedded_issuer import AUDIENCE, ISSUER
from infra.identity.signing_keys import StaticKeys
from infra.identity.tokens import TokenVerifier
from infra.service.api_server import api_services
from infra.settings import Settings
from projections.query.cursors import PaymentCursor, TransactionCursor, encode_cursor

_AN_EVENT: Final = 42


class PageReads:
    """Two databases, and a browser that is signed in to the pages of each."""

    def set_up(self, bench_env: BenchmarkEnvironment) -> None:
        """Write the rows that the pages read."""
        self._now = datetime.now(UTC)
        self._counts = {"few": bench_env.sizes.small_ledger, "many": bench_env.sizes.large_ledger}
        self._runs: dict[str, str] = {}
        for name, count in self._counts.items():
            database = f"reads_{name}"
            bench_env.create_database(database, MIGRATED)
            self._runs[name] = write_organisation(
                bench_env,
                database,
                runs=count,
                times_the_smallest=count // bench_env.sizes.small_ledger,
                now=self._now,
            )
            bench_env.vacuum(database)

    def measure(self, bench_env: BenchmarkEnvironment) -> Sample:
        """Measure every page of both, in turns."""
        issuer = EmbeddedIssuer(bench_env.directory / "issuer")
        issuer.start()
        took_us: dict[tuple[str, str], list[float]] = {}
        pages = {name: self._pages(name) for name in self._counts}
        with (
            _browser(bench_env, issuer, "few") as few,
            _browser(bench_env, issuer, "many") as many,
            bench_env.stopwatch() as watch,
        ):
            for _ in range(bench_env.sizes.page_reads):
                for page in pages["few"]:
                    for name, client in (("few", few), ("many", many)):
                        path = pages[name][page]
                        started = time.perf_counter()
                        status = client.get(path)
                        took_us.setdefault((page, name), []).append((time.perf_counter() - started) * 1e6)
                        must_equal(f"status of {path}", status, 200)
        medians = {key: statistics.median(values) for key, values in took_us.items()}
        times = {f"{page}_many_ms": medians[page, "many"] / 1_000 for page in pages["few"]}
        ratios = {
            f"{page}_many_vs_few": medians[page, "many"] / medians[page, "few"] for page in pages["few"]
        }
        reads = sum(len(values) for values in took_us.values())
        return watch.sample(reads, worst_many_vs_few=max(ratios.values()), **ratios, **times)

    def _pages(self, name: str) -> Mapping[str, str]:
        half_way = self._now - timedelta(days=180)
        run = encode_cursor(TransactionCursor(half_way, "usage", "run"))
        addition = encode_cursor(TransactionCursor(half_way, "addition", "1"))
        payment = encode_cursor(PaymentCursor(half_way, "payment"))
        return {
            "credits": "/credits",
            "credits_half_way": f"/credits?cursor={run}",
            "purchases": "/credits?tab=purchases",
            "purchases_half_way": f"/credits?tab=purchases&cursor={addition}",
            "month": f"/credits/months/{self._now:%Y-%m}",
            "event": f"/credits/events/{_AN_EVENT}",
            "busiest_event": "/credits/events/1",
            "busiest_event_half_way": f"/credits/events/1?cursor={run}",
            "run": f"/credits/runs?run={self._runs[name]}",
            "balance": "/credits/balance",
            "billing": "/credits/billing",
            "billing_half_way": f"/credits/billing?cursor={payment}",
            "subscription": "/credits/subscription",
        }


class _Browser:
    """A browser of an app in this process."""

    def __init__(self, runner: asyncio.Runner, client: httpx.AsyncClient) -> None:
        self._runner = runner
        self._client = client

    def get(self, path: str) -> int:
        """Load a page, and return its status."""
        return self._runner.run(self._client.get(path)).status_code


@contextmanager
def _browser(bench_env: BenchmarkEnvironment, issuer: EmbeddedIssuer, name: str) -> Iterator[_Browser]:
    """Yield a browser that is signed in to the pages of a database."""
    settings = Settings(
        embedded_issuer_keys=issuer.jwks_path,
        api_requests_per_minute=1_000_000,
        api_organisation_requests_per_minute=1_000_000,
    )
    verifier = TokenVerifier(StaticKeys(issuer.jwks()), issuer=ISSUER, audience=AUDIENCE)
    with (
        api_services(settings, bench_env.service_url(f"reads_{name}"), verifier) as services,
        asyncio.Runner() as runner,
    ):
        app = httpx.ASGITransport(create_app(services))
        browser = _Browser(runner, httpx.AsyncClient(transport=app, base_url="http://127.0.0.1:8000"))
        ticket = issuer.ticket("u-1", organisations={ORGANISATION: "admin"})
        must_equal("status of signing in", browser.get(f"/sign-in?ticket={ticket}"), 303)
        yield browser
