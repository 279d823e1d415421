"""Group commit: commands of many threads decide in memory and are appended in one transaction.

One thread takes the commands that wait. They decide in order, on aggregates that the thread keeps in memory.
Then it commits all decisions in one transaction. Meanwhile the next commands gather, so no timer is needed.
Under the write lock the thread only compares versions, dedupe keys and idempotency keys with the log. If
another writer changed an aggregate, the commands that read it decide again.

A command that fails leaves no trace in the others: each one decides on copies.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from copy import deepcopy
from threading import Condition, Thread
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from domain.shared.aggregate import Aggregate, EventEnvelope
from domain.shared.errors import DuplicateKey, IdempotencyConflict, StoreUnavailable, VersionConflict
from domain.shared.event_store import Command, CommandOutcome, IdempotencyKey, StoredResponse
from infra.event_store.command_transaction import CommandStore, CommandTransaction, Found
from infra.event_store.mapper import KeyedStoredEvent

GROUP_MAX: Final = 256
"""Commands in one transaction: it bounds how long the first of them waits for the last."""
CACHED_AGGREGATES: Final = 10_000
CHECKS_WITHOUT_LOCK: Final = 2
CHECKS_MAX: Final = 5
"""Under the lock no other writer appends: later checks can only find keys of newly made decisions."""

log = logging.getLogger(__name__)

A = TypeVar("A", bound=Aggregate)
LookUp = Callable[[Collection[UUID], Sequence[IdempotencyKey], Sequence[bytes]], Found]


class _DecideLater(Exception):
    """The decision reads a history from the log, and the group is about to append to that history."""


class _Ticket:
    """A command that waits for its outcome."""

    __slots__ = ("command", "error", "events", "outcome", "rows", "streams", "value")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.outcome: Future[CommandOutcome] = Future()
        self.forget()

    def forget(self) -> None:
        """Drop the decision."""
        self.value: Any = None
        self.error: BaseException | None = None
        self.events: list[EventEnvelope] = []
        self.rows: list[KeyedStoredEvent] = []
        self.streams: frozenset[UUID] = frozenset()
        """What the decision read, and what it appends to."""

    def refuse(self, error: BaseException) -> None:
        self.forget()
        self.outcome.set_exception(error)


class _Group:
    """The commands of one transaction, and the aggregates as the decisions so far leave them."""

    def __init__(self, cache: Mapping[UUID, Aggregate]) -> None:
        self._cache = cache
        self.tickets: list[_Ticket] = []
        self.bases: dict[UUID, Aggregate] = {}
        """Aggregates as they are in the log; None of them is ever changed."""
        self.decided: dict[UUID, Aggregate] = {}
        self.read: set[UUID] = set()
        """Streams that the present decision read."""

    def current(self, stream: UUID, load: Callable[[], A]) -> A:
        """Return a copy to decide on, of the aggregate as earlier commands of the group leave it."""
        self.read.add(stream)
        aggregate: Any = self.decided.get(stream)
        if aggregate is None:
            aggregate = self.bases.get(stream)
            if aggregate is None:
                aggregate = self._cache.get(stream)
                if aggregate is None:
                    aggregate = load()
                self.bases[stream] = aggregate
        copy: A = aggregate.fork() if hasattr(aggregate, "fork") else deepcopy(aggregate)
        return copy

    def require_committed(self, stream: UUID) -> None:
        """Raise `_DecideLater` if the group has events of a stream that the log does not have yet."""
        if any(each.originator_id == stream for ticket in self.tickets for each in ticket.events):
            raise _DecideLater

    def has_pending(self, envelope: EventEnvelope) -> bool:
        """Return whether an earlier command of the group appends the same version of the same stream."""
        decided = self.decided.get(envelope.originator_id)
        return decided is not None and envelope.originator_version <= decided.version

    def holder_of(self, keys: set[bytes]) -> _Ticket | None:
        """Return the command of the group that will append an event under one of these dedupe keys."""
        if not keys:
            return None
        return next(
            (ticket for ticket in self.tickets if any(row.dedupe_key in keys for row in ticket.rows)), None
        )


_group: ContextVar[_Group | None] = ContextVar("group", default=None)
"""The group that decides in this thread."""


class GroupCommit:
    """Runs commands. `run` may be called from any number of threads; close it when done."""

    def __init__(self, store: CommandStore) -> None:
        self._store = store
        self._cache: dict[UUID, Aggregate] = {}
        self._waiting: deque[_Ticket] = deque()
        self._changed = Condition()
        self._thread: Thread | None = None
        self._is_closed = False
        self._has_sent = False

    def run(self, command: Command) -> CommandOutcome:
        """Wait until a command is recorded, or refused.

        Raises:
            IdempotencyConflict: its key was used for another request.
            VersionConflict: it appends to the start of a history that exists.
            DuplicateKey: one of its events is in the log already, under its dedupe key.
            StoreUnavailable: the database cannot be reached, or the ledger is shutting down.
            Whatever the decision raises.
        """
        ticket = _Ticket(command)
        with self._changed:
            if self._is_closed:
                raise StoreUnavailable("the ledger is shutting down")
            if self._thread is None:
                self._thread = Thread(target=self._work, name="group-commit", daemon=True)
                self._thread.start()
            self._waiting.append(ticket)
            self._changed.notify_all()
        return ticket.outcome.result()

    def close(self) -> None:
        """Refuse the commands that wait, finish the group that is under way, and end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()
        self._store.close()

    # ------------------------------------------------------------------------ the one thread

    def _work(self) -> None:
        while group := self._take():
            try:
                self._commit_with_retry(group)
            except BaseException as error:  # no caller may wait for ever
                self._cache.clear()
                if not isinstance(error, StoreUnavailable):
                    log.exception("a group of %d commands failed", len(group))
                with self._changed:
                    postponed = set(map(id, self._waiting))
                for ticket in group:
                    if not ticket.outcome.done() and id(ticket) not in postponed:
                        ticket.refuse(error)

    def _commit_with_retry(self, tickets: list[_Ticket]) -> None:
        """Commit; once more if the connection was lost before anything was sent to be committed."""
        self._has_sent = False
        try:
            self._commit(tickets)
        except StoreUnavailable:
            if self._has_sent:
                raise
            self._cache.clear()
            with self._changed:
                postponed = set(map(id, self._waiting))
            self._commit([each for each in tickets if not each.outcome.done() and id(each) not in postponed])

    def _take(self) -> list[_Ticket]:
        """Wait for commands; return none when closed. Of one idempotency key a group has one command."""
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                while self._waiting:
                    self._waiting.popleft().refuse(StoreUnavailable("the ledger is shutting down"))
                return []
            group: list[_Ticket] = []
            later: list[_Ticket] = []
            keys: set[tuple[str, str]] = set()
            while self._waiting and len(group) < GROUP_MAX:
                ticket = self._waiting.popleft()
                key = _key_of(ticket)
                (later if key in keys else group).append(ticket)
                if key is not None:
                    keys.add(key)
            self._waiting.extendleft(reversed(later))
            return group

    def _commit(self, tickets: Sequence[_Ticket]) -> None:
        answered = self._store.responses(_keys_of(tickets))
        waiting = [ticket for ticket in tickets if not _answer(ticket, answered)]
        group = _Group(self._cache)
        for ticket in waiting:
            self._decide(group, ticket)
        holds = False
        if not any(_writes(ticket) for ticket in group.tickets):
            # A refusal must be true of the log, too. Nothing is written, so the check takes no lock at first.
            holds = self._check(self._store.look_up, group, CHECKS_WITHOUT_LOCK)
            holds = holds and not any(_writes(ticket) for ticket in group.tickets)
        if not holds:
            with self._store.begin() as transaction:
                if not self._check(transaction.look_up, group, CHECKS_MAX):
                    raise StoreUnavailable("the decisions of a group do not settle")
                last_position = self._append(transaction, group)
            self._remember(group)
        else:
            last_position = self._store.log_end()
        self._answer_all(group, last_position)

    def _append(self, transaction: CommandTransaction, group: _Group) -> int:
        if not any(_writes(ticket) for ticket in group.tickets):
            return transaction.log_end()
        self._has_sent = True
        return transaction.append(
            [row for ticket in group.tickets for row in ticket.rows],
            list(self._responses(group)),
            list(self._snapshots(group)),
        )

    def _decide(self, group: _Group, ticket: _Ticket) -> None:
        """Let a command decide after those before it; what it raises is its own outcome."""
        ticket.forget()
        group.read.clear()
        aggregates: Sequence[Aggregate] = ()
        token = _group.set(group)
        try:
            aggregates, ticket.value = ticket.command.decide()
            for aggregate in aggregates:
                aggregate.check_invariants()
                ticket.events += aggregate.collect_events()
            ticket.rows = [self._store.row(envelope) for envelope in ticket.events]
            if any(group.has_pending(envelope) for envelope in ticket.events):
                # Both start the same history. If the other one decides again, so must this one.
                group.read |= {envelope.originator_id for envelope in ticket.events}
                ticket.error = VersionConflict(constraint="events_pkey")
            first = group.holder_of({row.dedupe_key for row in ticket.rows if row.dedupe_key is not None})
            if first is not None:
                group.read |= first.streams  # if that one decides again, so must this one
                ticket.error = DuplicateKey(constraint="events_dedupe_key")
        except _DecideLater:
            ticket.forget()
            with self._changed:
                self._waiting.appendleft(ticket)
            return
        except Exception as error:  # the caller gets it, if it is true of the log
            ticket.error = error
        finally:
            _group.reset(token)
        if ticket.error is not None:
            ticket.events, ticket.rows, aggregates = [], [], ()
        ticket.streams = frozenset(group.read.union(aggregate.id for aggregate in aggregates))
        group.decided.update({aggregate.id: aggregate for aggregate in aggregates})
        group.tickets.append(ticket)

    def _check(self, look_up: LookUp, group: _Group, attempts: int) -> bool:
        """Compare the group with the log and repeat outdated decisions. Return whether all decisions hold."""
        for _ in range(attempts):
            found = look_up(
                {stream for ticket in group.tickets for stream in ticket.streams},
                _keys_of(group.tickets),
                [row.dedupe_key for ticket in group.tickets for row in ticket.rows if row.dedupe_key],
            )
            moved = {
                stream for stream, version in found.versions.items() if version != _version(group, stream)
            }
            touched = set(moved)
            waiting = []
            for ticket in group.tickets:
                if _answer(ticket, found.responses):
                    touched |= ticket.streams
                elif not ticket.streams & moved and any(
                    row.dedupe_key in found.dedupe_keys for row in ticket.rows
                ):
                    touched |= ticket.streams
                    ticket.refuse(DuplicateKey(constraint="events_dedupe_key"))
                else:
                    waiting.append(ticket)
            again = _sharing(waiting, touched)
            if not touched:
                return True
            self._rewind(group, moved, touched, [ticket for ticket in waiting if ticket not in again])
            for ticket in again:
                if _starts_existing(ticket, moved):
                    ticket.refuse(VersionConflict(constraint="events_pkey"))
                else:
                    self._decide(group, ticket)
            if not again:
                return True
        return False

    def _rewind(self, group: _Group, moved: set[UUID], touched: set[UUID], stands: list[_Ticket]) -> None:
        """Forget the decisions on the streams that are touched; those of others stand."""
        for stream in moved:
            self._cache.pop(stream, None)
            group.bases.pop(stream, None)
        for stream in touched:
            group.decided.pop(stream, None)
        group.tickets[:] = stands

    @staticmethod
    def _responses(group: _Group) -> Iterator[tuple[IdempotencyKey, bytes, int | None]]:
        """Return keys and answers, each with how many events of the group come after its own."""
        events_left = sum(len(ticket.rows) for ticket in group.tickets)
        has_any = False
        for ticket in group.tickets:
            events_left -= len(ticket.rows)
            has_any = has_any or bool(ticket.rows)
            if ticket.command.idempotency_key is not None and ticket.error is None:
                yield (
                    ticket.command.idempotency_key,
                    msgspec.json.encode(ticket.value),
                    (events_left if has_any else None),
                )

    def _snapshots(self, group: _Group) -> Iterator[KeyedStoredEvent]:
        if not all(ticket.command.takes_snapshots for ticket in group.tickets):
            return
        for stream, aggregate in group.decided.items():
            snapshot = aggregate.due_snapshot(_version(group, stream))
            if snapshot is not None:
                yield self._store.row(snapshot)

    def _remember(self, group: _Group) -> None:
        for stream, aggregate in group.decided.items():
            self._cache.pop(stream, None)
            self._cache[stream] = aggregate
        while len(self._cache) > CACHED_AGGREGATES:
            self._cache.pop(next(iter(self._cache)))

    @staticmethod
    def _answer_all(group: _Group, last_position: int) -> None:
        position = last_position - sum(len(ticket.rows) for ticket in group.tickets)
        for ticket in group.tickets:
            if ticket.error is not None:
                ticket.refuse(ticket.error)
                continue
            position += len(ticket.rows)
            ticket.outcome.set_result(CommandOutcome(ticket.value, None, position))


def current(stream: UUID, load: Callable[[], A]) -> A:
    """Return an aggregate to decide on: inside a command, as earlier commands of its group leave it."""
    group = _group.get()
    return load() if group is None else group.current(stream, load)


def require_committed(stream: UUID) -> None:
    """Postpone the deciding command if it is about to read a stream that its group appends to."""
    group = _group.get()
    if group is not None:
        group.require_committed(stream)


def _version(group: _Group, stream: UUID) -> int:
    base = group.bases.get(stream)
    return 0 if base is None else base.version


def _sharing(tickets: Sequence[_Ticket], touched: set[UUID]) -> list[_Ticket]:
    """Return the tickets that share a stream with those touched, directly or through each other.

    `touched` grows by their streams.
    """
    found: list[_Ticket] = []
    left = list(tickets)
    while sharing := [ticket for ticket in left if ticket.streams & touched]:
        found += sharing
        left = [ticket for ticket in left if ticket not in sharing]
        for ticket in sharing:
            touched |= ticket.streams
    return [ticket for ticket in tickets if ticket in found]


def _writes(ticket: _Ticket) -> bool:
    return ticket.error is None and bool(ticket.rows or ticket.command.idempotency_key)


def _key_of(ticket: _Ticket) -> tuple[str, str] | None:
    key = ticket.command.idempotency_key
    return None if key is None else (key.scope, key.key)


def _keys_of(tickets: Sequence[_Ticket]) -> list[IdempotencyKey]:
    return [
        ticket.command.idempotency_key for ticket in tickets if ticket.command.idempotency_key is not None
    ]


def _answer(ticket: _Ticket, responses: Mapping[tuple[str, str], tuple[bytes, StoredResponse]]) -> bool:
    """Answer a command that was recorded before; return whether it was."""
    key = ticket.command.idempotency_key
    found = None if key is None else responses.get((key.scope, key.key))
    if key is None or found is None:
        return False
    digest, response = found
    if digest != key.request_digest:
        ticket.outcome.set_exception(IdempotencyConflict())
    else:
        ticket.outcome.set_result(CommandOutcome(None, response.body, response.position))
    return True


def _starts_existing(ticket: _Ticket, moved: set[UUID]) -> bool:
    """Return whether a command starts a history that exists by now: deciding again would not help."""
    return any(each.originator_version == 1 and each.originator_id in moved for each in ticket.events)
