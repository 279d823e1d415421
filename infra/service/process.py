"""How every process of the service starts and ends."""

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

SWITCH_INTERVAL_S: Final = 0.0002
SUPERVISED: Final = "CREDITLEDGER_SUPERVISED"
_GC_THRESHOLDS: Final = (100_000, 50, 50)
_CONNECT_TIMEOUT_S: Final = 5
_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:@\[\]]+)(:\d{1,5})?")

log = logging.getLogger("creditledger")


class ServiceUnreachable(Exception):
    """A server that a setting names cannot be used; the message names the setting, and no password."""


def check_database_url(variable: str, url: str) -> None:
    """Check that a variable holds something that names a PostgreSQL database.

    Raises:
        Unreachable: it does not.
    """
    # The driver's own words quote the text, and with it the password.
    wrong = ServiceUnreachable(
        f"{variable} is not a PostgreSQL URL such as postgresql://user:password@host:5432/name"
        " (special characters in its parts are percent-encoded)"
    )
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        raise wrong from None
    ports = str(parts.get("port") or "").replace(",", "")
    if "@" in str(parts.get("host") or "") or (ports and not ports.isdecimal()):
        raise wrong


def check_database(variable: str, url: str) -> None:
    """Check that the database a variable names takes our connections, within seconds.

    Raises:
        Unreachable: it does not.
    """
    check_database_url(variable, url)
    try:
        psycopg.connect(url, connect_timeout=_CONNECT_TIMEOUT_S).close()
    except psycopg.Error as error:
        raise ServiceUnreachable(f"{variable}: {reason(error)}") from None


def check_broker_address(settings: Settings) -> None:
    """Check that the setting names Kafka brokers.

    Raises:
        Unreachable: it does not.
    """
    given = settings.kafka_bootstrap_servers or ""
    if not all(_ADDRESS.fullmatch(each.strip()) for each in given.split(",")):
        raise ServiceUnreachable(f"KAFKA_BOOTSTRAP_SERVERS={given} is not host:port, or several with commas")


def check_broker(settings: Settings) -> None:
    """Check that the Kafka brokers of the settings answer, within seconds.

    Raises:
        Unreachable: they do not.
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
    """Return the URL of a database that answers; patiently: one that may do so later.

    Raises:
        Unreachable: it does not, or could never.
    """
    if settings.database_url is None:
        raise SystemExit("DATABASE_URL is not set: only `creditledger up` brings a database along")
    url = settings.database_url.get_secret_value()
    check_database_url("DATABASE_URL", url)
    try:
        check_database("DATABASE_URL", url)
    except ServiceUnreachable as error:
        if not wait_until_up:
            raise
        log.warning("%s; tries again until it answers", error)
    return url


def owner_database_url(settings: Settings) -> str:
    """Return the URL of the owner's database, which answers.

    Raises:
        Unreachable: it does not.
    """
    if settings.migration_database_url is None:
        return database_url(settings)
    url = settings.migration_database_url.get_secret_value()
    check_database("MIGRATION_DATABASE_URL", url)
    return url


def require_broker(settings: Settings, *, wait_until_up: bool = False) -> None:
    """Check that there is a broker and that it answers; patiently: that it may do so later.

    Raises:
        Unreachable: it does not, or could never.
    """
    if settings.kafka_bootstrap_servers is None:
        raise SystemExit("KAFKA_BOOTSTRAP_SERVERS is not set: only `creditledger up` brings a broker along")
    if wait_until_up:
        check_broker_address(settings)
    else:
        check_broker(settings)


def reason(error: BaseException) -> str:
    """Return the first line of an error, which is all that people need of a driver's."""
    lines = str(error).strip().splitlines()
    return lines[0].removeprefix("connection failed: ") if lines else type(error).__name__


def run_in_threads(tasks: Sequence[Callable[[Event], None]], stop: Event) -> None:
    """Run duties, each in a thread of its own, until told to stop. One that fails ends the others too.

    Raises:
        Exception: what the first of them failed with.
    """

    def run(duty: Callable[[Event], None]) -> None:
        try:
            duty(stop)
        finally:
            stop.set()

    with ThreadPoolExecutor(len(tasks)) as pool:
        running = [pool.submit(run, duty) for duty in tasks]
    for each in running:
        each.result()


def tune_for_throughput() -> None:
    """Let threads overlap, and collect garbage less often.

    Python lets a thread run 5 ms before another one may; the broker client's own thread then sits on what
    it received while this one decides. 0.2 ms keeps both busy. What is imported lives for ever, and batches
    free themselves by reference counts, so collections have little to find.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def stop_on_signals() -> Event:
    """Return an event that SIGTERM and SIGINT set; a second signal ends the process at once.

    A part of `creditledger up` stops as well when its parent is gone, however that ended: it then reads
    the end of its standard input.
    """
    stop = Event()
    asked = False

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True
        # Not here: the interrupted code may be inside the event's own lock.
        Thread(target=stop.set, name="stop", daemon=True).start()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    if os.environ.get(SUPERVISED) == "1":
        Thread(target=_watch_parent, args=(stop,), name="watch-parent", daemon=True).start()
    return stop


def _watch_parent(stop: Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    stop.set()
