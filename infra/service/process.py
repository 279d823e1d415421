"""Start and stop of a service process: checks of its servers, signals, threads."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from types import FrameType
from typing import Final

import psycopg
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from psycopg.conninfo import conninfo_to_dict

from infra.kafka.connections import connection_options
from infra.settings import Settings
from infra.struct_types import prepare_struct_types

SWITCH_INTERVAL_S: Final = 0.0002
SUPERVISED: Final = "CREDITLEDGER_SUPERVISED"
_GC_THRESHOLDS: Final = (100_000, 50, 50)
_CONNECT_TIMEOUT_S: Final = 5
_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:@\[\]]+)(:\d{1,5})?")

log = logging.getLogger("creditledger")


class ServiceUnreachable(Exception):
    """A configured server cannot be used. The message names the setting and contains no password."""


def check_database_url(variable: str, url: str) -> None:
    """Check that a setting holds a PostgreSQL URL.

    Raises:
        ServiceUnreachable: it does not.
    """
    # The driver's message quotes the URL with its password.
    invalid_url = ServiceUnreachable(
        f"{variable} is not a PostgreSQL URL such as postgresql://user:password@host:5432/name"
        " (special characters in its parts are percent-encoded)"
    )
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        raise invalid_url from None
    ports = str(parts.get("port") or "").replace(",", "")
    if "@" in str(parts.get("host") or "") or (ports and not ports.isdecimal()):
        raise invalid_url


def check_database(variable: str, url: str) -> None:
    """Check that the database of a setting accepts a connection within a few seconds.

    Raises:
        ServiceUnreachable: it does not.
    """
    check_database_url(variable, url)
    try:
        psycopg.connect(url, connect_timeout=_CONNECT_TIMEOUT_S).close()
    except psycopg.Error as error:
        raise ServiceUnreachable(f"{variable}: {reason(error)}") from None


def check_broker_address(settings: Settings) -> None:
    """Check that KAFKA_BOOTSTRAP_SERVERS holds valid addresses.

    Raises:
        ServiceUnreachable: it does not.
    """
    given = settings.kafka_bootstrap_servers or ""
    if not all(_ADDRESS.fullmatch(each.strip()) for each in given.split(",")):
        raise ServiceUnreachable(
            f"KAFKA_BOOTSTRAP_SERVERS={given} is not host:port or a comma-separated list of them"
        )


def check_broker(settings: Settings) -> None:
    """Check that a configured Kafka broker answers within a few seconds.

    Raises:
        ServiceUnreachable: none answers.
    """
    check_broker_address(settings)
    try:
        KafkaAdminClient(**connection_options(settings)).close()
    except (KafkaError, OSError) as error:
        raise ServiceUnreachable(
            f"KAFKA_BOOTSTRAP_SERVERS: no broker answers at {settings.kafka_bootstrap_servers}"
            f" over {settings.kafka_security_protocol}: {reason(error)}"
        ) from None


def database_url(settings: Settings, *, wait_until_up: bool = False) -> str:
    """Return the URL of the database after a check that it answers.

    With `wait_until_up`, a database that does not answer now is only logged: the caller retries.

    Raises:
        ServiceUnreachable: the URL is invalid, or the database does not answer.
    """
    if settings.database_url is None:
        raise SystemExit("DATABASE_URL is not set: only `creditledger up` has an embedded database")
    url = settings.database_url.get_secret_value()
    check_database_url("DATABASE_URL", url)
    try:
        check_database("DATABASE_URL", url)
    except ServiceUnreachable as error:
        if not wait_until_up:
            raise
        log.warning("%s; trying again until it answers", error)
    return url


def owner_database_url(settings: Settings) -> str:
    """Return the database URL for the owner after a check that the database answers.

    Raises:
        ServiceUnreachable: it does not answer.
    """
    if settings.migration_database_url is None:
        return database_url(settings)
    url = settings.migration_database_url.get_secret_value()
    check_database("MIGRATION_DATABASE_URL", url)
    return url


def require_broker(settings: Settings, *, wait_until_up: bool = False) -> None:
    """Check that a broker is configured and answers. With `wait_until_up`, check only the address.

    Raises:
        ServiceUnreachable: the address is invalid, or no broker answers.
    """
    if settings.kafka_bootstrap_servers is None:
        raise SystemExit("KAFKA_BOOTSTRAP_SERVERS is not set: only `creditledger up` has an embedded broker")
    if wait_until_up:
        check_broker_address(settings)
    else:
        check_broker(settings)


def reason(error: BaseException) -> str:
    """Return the first line of an error message. Drivers add details that users do not need."""
    lines = str(error).strip().splitlines()
    return lines[0].removeprefix("connection failed: ") if lines else type(error).__name__


def run_in_threads(tasks: Sequence[Callable[[Event], None]], stop: Event) -> None:
    """Run each task in its own thread until `stop` is set. If a task fails, all others stop too.

    Raises:
        Exception: the error of the first failed task.
    """

    def run(task: Callable[[Event], None]) -> None:
        try:
            task(stop)
        finally:
            stop.set()

    prepare_struct_types()
    with ThreadPoolExecutor(len(tasks)) as pool:
        running = [pool.submit(run, task) for task in tasks]
    for each in running:
        each.result()


def tune_for_throughput() -> None:
    """Switch between threads more often, and collect garbage less often.

    By default a Python thread runs for 5 ms before another one gets its turn. The broker client's thread then
    waits with received data while this thread works. 0.2 ms keeps both busy. Imported objects live until the
    process ends, and reference counting frees each batch, so the garbage collector finds little.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def stop_on_signals() -> Event:
    """Return an event that SIGTERM and SIGINT set. A second signal ends the process at once.

    A child process of `creditledger up` also stops when its standard input is closed, because this means that
    the parent has ended.
    """
    stop = Event()
    signalled = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal signalled
        if signalled:
            os._exit(128 + number)
        signalled = True
        # In another thread, because the interrupted code may hold the event's lock.
        Thread(target=stop.set, name="stop", daemon=True).start()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    if os.environ.get(SUPERVISED) == "1":
        Thread(target=_watch_parent, args=(stop,), name="watch-parent", daemon=True).start()
    return stop


def _watch_parent(stop: Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    stop.set()
