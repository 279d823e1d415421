"""Keeps projections current: wakes on notifications, reconnects to the database, stops on request.

Several runners may run: each batch is applied by exactly one of them. A second runner is a standby that
costs one failed batch every half second.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Event
from typing import Final

import msgspec
import psycopg

from domain.shared.backoff import Backoff
from domain.shared.event_store import EVENTS_CHANNEL
from projections.engine.errors import ProjectionCheckpointConflict
from projections.engine.event_log import wait_for_events
from projections.engine.projection import Projection
from projections.engine.projector import BATCH_SIZE, Projector

_POLL_S: Final = 0.5
_BACKOFF_INITIAL_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0

logger = logging.getLogger(__name__)


class Progress(msgspec.Struct, frozen=True):
    """The progress of the projections after the latest batch.

    All projections contain the log up to `position`; `lag` is the number of log ids after it.
    """

    positions: dict[str, int]
    position: int
    log_end: int
    lag: int


class ProjectionRunner:
    """Runs projections in the calling thread. Other threads may call `stop` and `progress`.

    It uses LISTEN, so the connection must reach PostgreSQL itself, not a pool that shares sessions. The role
    must be able to read `ledger.events` and to write the tables of `projections`.
    """

    def __init__(
        self,
        conninfo: str,
        projections: Sequence[Projection],
        *,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self._conninfo = conninfo
        self._projections = projections
        self._batch_size = batch_size
        self._stopping = Event()
        self._projector: Projector | None = None

    def run(self) -> None:
        """Project until stopped. Reconnect when the database is lost.

        Raises:
            UnknownEventType: the log was written by a newer version of the ledger.
            InvariantViolation: the log contains a change of an organisation that was never opened.
        """
        backoff = Backoff(_BACKOFF_INITIAL_S, _BACKOFF_MAX_S)
        while not self._stopping.is_set():
            try:
                with self._connect() as projector:
                    backoff.reset()
                    self._follow(projector)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                logger.warning("projections lost the database, next try in %.1f s: %s", backoff.next_s, error)
                self._stopping.wait(backoff.advance())

    def catch_up(self) -> int:
        """Project up to the current end of the log, and return the number of entries read.

        Raises:
            ProjectionCheckpointConflict: another runner or a rebuild moved a projection meanwhile.
            UnknownEventType: the log was written by a newer version of the ledger.
            psycopg.OperationalError: the database cannot be reached.
        """
        with self._connect() as projector:
            return projector.catch_up(stopping=self._stopping)

    def stop(self) -> None:
        """Make `run` return after the batch in progress, within about half a second."""
        self._stopping.set()

    def progress(self) -> Progress:
        """Return the progress of the projections; all zeros before the first connection."""
        if self._projector is None:
            return Progress({}, 0, 0, 0)
        positions = {checkpoint.projection: checkpoint.position for checkpoint in self._projector.checkpoints}
        position = min(positions.values(), default=0)
        log_end = max(self._projector.log_end, position)
        return Progress(positions, position, log_end, log_end - position)

    def _connect(self) -> Projector:
        self._projector = Projector(self._conninfo, self._projections, batch_size=self._batch_size)
        return self._projector

    def _follow(self, projector: Projector) -> None:
        projector.reader.execute(f"LISTEN {EVENTS_CHANNEL}")
        while not self._stopping.is_set():
            try:
                projector.catch_up(stopping=self._stopping)
            except ProjectionCheckpointConflict as error:
                logger.info("another runner or a rebuild is running: %s", error)
                self._stopping.wait(_POLL_S)
                projector.load_positions()
            else:
                wait_for_events(projector.reader, _POLL_S)
