"""Metrics: requests by route template, and positions of the projections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Final

import psycopg
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Scope

from domain.shared.errors import StoreUnavailable
from projections.connection import Connection
from projections.credits import queries as credit_queries
from projections.credits.read_models import Positions

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_log = logging.getLogger("api")


class RequestMetrics:
    """Request counts and durations. Labels come from a closed set: a raw path would reveal customers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = Counter(
            "creditledger_http_requests",
            "HTTP requests by method, route and status",
            ["method", "route", "status"],
            registry=registry,
        )
        self._duration_s = Histogram(
            "creditledger_http_request_duration_seconds",
            "Seconds from a request's headers to the end of its response",
            ["method", "route"],
            buckets=_BUCKETS_S,
            registry=registry,
        )

    def observe(self, method: str, scope: Scope, status: int, duration_s: float) -> None:
        """Count one request. The scope has its route, if routing found one."""
        method = method if method in _METHODS else "other"
        route = getattr(scope.get("route"), "path_format", "unmatched")
        self._count.labels(method, route, str(status)).inc()
        self._duration_s.labels(method, route).observe(duration_s)


class ProjectionPositions(Collector):
    """Reads the positions at every scrape. Shows none while the database is unavailable."""

    def __init__(self, read_connection: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._read_connection = read_connection

    def describe(self) -> Iterable[Metric]:
        """Return no metrics: registration must not read the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the end of the log, and the position and lag of every projection."""
        try:
            with self._read_connection() as connection:
                positions = credit_queries.positions(connection)
        except (psycopg.Error, StoreUnavailable) as error:
            _log.warning("cannot read projection positions for the metrics: %s", error)
            return
        yield from _families(positions)


def _families(positions: Positions) -> Iterator[Metric]:
    log_end = GaugeMetricFamily(
        "creditledger_log_end_position", "The last notification id of the log", value=positions.log_end
    )
    position = GaugeMetricFamily(
        "creditledger_projection_position", "Log position of a projection", labels=["projection"]
    )
    lag = GaugeMetricFamily(
        "creditledger_projection_lag_positions",
        "Log positions between a projection and the end of the log",
        labels=["projection"],
    )
    for each in positions.projections:
        position.add_metric([each.projection], each.position)
        lag.add_metric([each.projection], max(0, positions.log_end - each.position))
    yield from (log_end, position, lag)
