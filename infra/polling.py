"""Runs a step periodically, and retries when the database is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event
from typing import Any, Final

import psycopg

from domain.shared.backoff import Backoff
from domain.shared.errors import StoreError

_BACKOFF_MAX_S: Final = 5.0

log = logging.getLogger(__name__)


def run_periodically(
    conninfo: str, every_s: float, step: Callable[[psycopg.Connection[Any]], object], stop: Event, what: str
) -> None:
    """Call `step` with a connection every `every_s` seconds until `stop` is set.

    `what` names it in the log.
    """
    backoff = Backoff(min(every_s, 1.0), _BACKOFF_MAX_S)
    while not stop.is_set():
        try:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                backoff.reset()
                while not stop.wait(every_s):
                    step(connection)
        except (psycopg.OperationalError, psycopg.InterfaceError, StoreError) as error:
            log.warning("%s: the database is lost, next try in %.0f s: %s", what, backoff.next_s, error)
            stop.wait(backoff.advance())
