"""Looks again and again for what is due, and waits for a lost database."""

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
    """Call `step` with a connection every so many seconds, until told to stop; `what` it is, for the log."""
    backoff = Backoff(min(every_s, 1.0), _BACKOFF_MAX_S)
    while not stop.is_set():
        try:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                backoff.reset()
                while not stop.wait(every_s):
                    step(connection)
        except (psycopg.OperationalError, psycopg.InterfaceError, StoreError) as error:
            log.warning("%s has to wait, next try in %.0f s: %s", what, backoff.next_s, error)
            stop.wait(backoff.advance())
