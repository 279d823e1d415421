"""Servers for one benchmark run, new databases on them, and a stopwatch that also measures CPU time."""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from benchmarks.organisations import open_organisations
from benchmarks.sizes import ORGANISATIONS, Sizes
from benchmarks.traffic import Traffic, UsageRecord, organisation_ids
from infra.embedded.broker import EmbeddedBroker
from infra.embedded.postgres import EmbeddedPostgres
from infra.migrations.migrate import SERVICE_ROLE, migrate

MIGRATED: Final = "template_migrated"
OPENED: Final = "template_opened"


class Sample(NamedTuple):
    """One measurement of a case: a number of events and their time. CPU counts the measured parts only."""

    events: int
    seconds: float
    python_s: float
    postgres_s: float
    figures: dict[str, float] = {}  # noqa: RUF012 - never changed


class Stopwatch:
    """Measures time and CPU between `start` and `stop`. `python_s` is this process's CPU."""

    def __init__(self, postgres: psutil.Process) -> None:
        self._postgres = postgres
        self.start()

    def start(self) -> None:
        """Start, or restart."""
        self._started = (_cpu_with_children_s(self._postgres), time.process_time(), time.perf_counter())

    def stop(self) -> None:
        """Store the elapsed time and CPU."""
        postgres_s, python_s, seconds = self._started
        self.seconds = time.perf_counter() - seconds
        self.python_s = time.process_time() - python_s
        self.postgres_s = _cpu_with_children_s(self._postgres) - postgres_s

    def sample(self, events: int, **figures: float) -> Sample:
        """Return the measurement for a number of events."""
        return Sample(events, self.seconds, self.python_s, self.postgres_s, figures)


class BenchmarkEnvironment:
    """PostgreSQL with default settings, and a broker, in a private directory until `close`."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.organisations = organisation_ids(ORGANISATIONS)
        self._stack = ExitStack()
        self._broker: EmbeddedBroker | None = None
        try:
            self.directory = self._stack.enter_context(_private_directory())
            self._postgres = self._stack.enter_context(EmbeddedPostgres(self.directory / "postgres"))
            self._admin = self._stack.enter_context(
                psycopg.connect(self._postgres.url("postgres"), autocommit=True)
            )
            self._make_templates()
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Stop the servers and remove their directory."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def usage(self) -> tuple[list[UsageRecord], int]:
        """Messages that several cases share, and their total credits."""
        traffic = Traffic(self.organisations)
        return traffic.take(self.sizes.ingest), traffic.credits

    @property
    def broker_address(self) -> str:
        """Bootstrap address of the broker, which starts on first use."""
        if self._broker is None:
            self._broker = self._stack.enter_context(EmbeddedBroker(self.directory / "broker"))
        return self._broker.address

    def postgres_version(self) -> str:
        """Return the server's version."""
        return str(self._ask("SHOW server_version"))

    # ------------------------------------------------------------------------------- databases

    @contextmanager
    def database(self, template: str = OPENED) -> Iterator[str]:
        """Create a database, yield the URL that the service connects with, and drop it afterwards."""
        name = f"case_{time.monotonic_ns()}"
        url = self.create_database(name, template)
        try:
            yield url
        finally:
            self._admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def create_database(self, name: str, template: str) -> str:
        """Create a database that lasts as long as the servers."""
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self._admin.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        return self.service_url(name)

    def service_url(self, database: str) -> str:
        """Return the URL that the service connects with, with the same rights as in production."""
        return make_conninfo(self._postgres.url(database), options=f"-c role={SERVICE_ROLE}")

    def owner_url(self, database: str) -> str:
        """Return the superuser's URL of a database."""
        return self._postgres.url(database)

    def vacuum(self, database: str) -> None:
        """Vacuum after a big load, so that autovacuum does not run during the measurement."""
        with psycopg.connect(self.owner_url(database), autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")

    def _make_templates(self) -> None:
        self.create_database(MIGRATED, "template1")
        migrate(self.owner_url(MIGRATED))
        open_organisations(self.create_database(OPENED, MIGRATED), self.organisations)

    # --------------------------------------------------------------------------------- measuring

    @contextmanager
    def stopwatch(self) -> Iterator[Stopwatch]:
        """Measure the block. Before it, collect garbage and make PostgreSQL write a checkpoint."""
        gc.collect()
        self._admin.execute("CHECKPOINT")
        watch = Stopwatch(psutil.Process(self._postgres.pid))
        yield watch
        watch.stop()

    def commit_us(self, writes: int = 200) -> float:
        """Return the median time in microseconds of a small durable write on the database's disk: the cost of
        a commit.
        """
        took = []
        path = self.directory / "probe"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for _ in range(writes):
                started = time.perf_counter()
                os.pwrite(descriptor, bytes(8_192), 0)
                os.fsync(descriptor)
                took.append(time.perf_counter() - started)
        finally:
            os.close(descriptor)
            path.unlink()
        return statistics.median(took) * 1e6

    def _ask(self, query: str) -> Any:
        row = self._admin.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds of a process."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _cpu_with_children_s(parent: psutil.Process) -> float:
    """Return the CPU seconds of a process and its children, including ended ones (on Linux)."""
    own = parent.cpu_times()
    ended = getattr(own, "children_user", 0.0) + getattr(own, "children_system", 0.0)
    total = own.user + own.system + ended
    for child in parent.children():
        with suppress(psutil.NoSuchProcess):
            total += cpu_s(child)
    return float(total)


@contextmanager
def _private_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="creditledger-bench-"))
    directory.chmod(0o711)  # if root starts the servers, they run as another account
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
