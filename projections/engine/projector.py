"""Advances projections to the end of the log: read, fold, write, batch by batch.

Projections at the same position share one read, one decoding and one transaction. A projection that is
behind is first advanced alone to the next one's position. The next batch is read and folded while the
previous one is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from threading import Event
from types import TracebackType
from typing import Final, Self

import msgspec
import psycopg
from psycopg import sql

from domain.event_catalogue import EventCodec
from projections.connection import Connection
from projections.engine.checkpoints import Checkpoint, advance, load_checkpoints, lock_expected
from projections.engine.event_log import EventLog
from projections.engine.projection import Changes, Projection

LIVE_SCHEMA: Final = "projections"
BATCH_SIZE: Final = 5_000
_STALLED_S: Final = 30


class CheckpointGroup(msgspec.Struct, frozen=True):
    """Projections at the same position, and the position up to which they advance together."""

    checkpoints: list[Checkpoint]
    position: int
    up_to: int


class Projector:
    """Advances projections with two connections: one reads the log, the other writes rows to one schema.

    Its only state between batches is the checkpoints. After any error the projector must be closed; a new
    one resumes at the committed positions.
    """

    def __init__(
        self,
        conninfo: str,
        projections: Sequence[Projection],
        *,
        schema: str = LIVE_SCHEMA,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        """Connect and load the checkpoints.

        Raises:
            psycopg.OperationalError: the database cannot be reached.
        """
        self._projections = {projection.name: projection for projection in projections}
        self._batch_size = batch_size
        self.checkpoints: list[Checkpoint] = []
        self.log_end = 0  # every batch sees this value
        with ExitStack() as resources:
            self.reader: Connection = resources.enter_context(
                closing(psycopg.connect(conninfo, autocommit=True))
            )
            self._log = EventLog(self.reader, EventCodec())
            # Each statement gets a new plan: a plan made while a table was small would be kept too long.
            self._writer: Connection = resources.enter_context(
                closing(psycopg.connect(conninfo, autocommit=True, prepare_threshold=None))
            )
            self._writer.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
            # A server crash loses rows and positions together; they are folded again from the log.
            self._writer.execute("SET synchronous_commit = off")
            # A runner that stalls in a transaction must not keep its standby waiting forever.
            self._writer.execute(f"SET idle_in_transaction_session_timeout = '{_STALLED_S}s'")
            self._writing = resources.enter_context(
                ThreadPoolExecutor(1, thread_name_prefix="projection-writer")
            )
            self.load_positions()
            self._resources = resources.pop_all()

    def load_positions(self) -> None:
        """Load the checkpoints of the projections.

        Raises:
            psycopg.OperationalError: the connection is lost.
        """
        with self._writer.transaction():
            self.checkpoints = load_checkpoints(self._writer, list(self._projections))

    def catch_up(self, up_to: int | None = None, stopping: Event | None = None) -> int:
        """Advance every projection to `up_to`, or to the current end of the log. Return the entry count.

        Raises:
            ProjectionCheckpointConflict: another runner or a rebuild moved a projection; load positions
                again.
            UnknownEventType: the log was written by a newer version of the ledger.
            psycopg.OperationalError: the database was lost.
        """
        self.log_end = self._log.end()
        if up_to is None:
            up_to = self.log_end
        read = 0
        while not (stopping and stopping.is_set()):
            group = self._next_group(up_to)
            if group is None:
                break
            read += self._advance(group, stopping)
        return read

    def close(self) -> None:
        """Wait for the batch in progress, and disconnect."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_group(self, up_to: int) -> CheckpointGroup | None:
        position = min((checkpoint.position for checkpoint in self.checkpoints), default=up_to)
        if position >= up_to:
            return None
        ahead = [checkpoint.position for checkpoint in self.checkpoints if checkpoint.position > position]
        return CheckpointGroup(
            [checkpoint for checkpoint in self.checkpoints if checkpoint.position == position],
            position,
            min([up_to, *ahead]),
        )

    def _advance(self, group: CheckpointGroup, stopping: Event | None) -> int:
        """Process the log for a group of checkpoints, up to the group's last position.

        Each batch is written while the next one is read and folded.
        """
        read = 0
        members = group.checkpoints
        writing: Future[list[Checkpoint]] | None = None
        position = group.position
        while position < group.up_to and not (stopping and stopping.is_set()):
            batch = self._log.read(position, group.up_to, self._batch_size)
            self.log_end = self._log.end()
            changes = [self._projections[member.projection].fold(batch.entries) for member in members]
            if writing is not None:
                members = writing.result()
            writing = self._writing.submit(self._write, members, changes, batch.position)
            position = batch.position
            read += len(batch.entries)
        if writing is not None:
            writing.result()
        return read

    def _write(self, members: list[Checkpoint], changes: list[Changes], position: int) -> list[Checkpoint]:
        """Commit the changes of a batch with its position, if the members' checkpoints did not change."""
        with self._writer.transaction():
            lock_expected(self._writer, members)
            for change in changes:
                change.write(self._writer)
            advance(self._writer, [member.projection for member in members], position)
        moved = [Checkpoint(member.projection, position, member.generation) for member in members]
        others = [checkpoint for checkpoint in self.checkpoints if checkpoint not in members]
        self.checkpoints = sorted([*others, *moved])
        return moved
