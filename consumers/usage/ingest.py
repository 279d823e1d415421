"""Usage into the ledger: decode, decide and encode one batch while the database commits the one before.

The cache of organisations holds committed state only, true at `log_end`. A batch decides on forks of it
(or of the forks of the batch in flight) which become the cache when the batch is in. Whatever fails,
forks are dropped and nothing is left of the decision.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from consumers.usage.batch import Batch, Counts, Message, Record, record_of_parked
from consumers.usage.ports import (
    DeadLetters,
    ParkedMessage,
    PositionMove,
    UsageStore,
    UsageTransaction,
)
from domain.credits.ledger import snapshot_is_due
from domain.credits.organisation import Organisation
from domain.credits.usage import UsageReport
from domain.pricing.rate_card import RateCard
from domain.shared.errors import DuplicateKey
from domain.shared.event_store import Clock
from domain.shared.stream_keys import stream_id

CACHED_ORGANISATIONS: Final = 100_000
PARKED_MAX_AGE: Final = timedelta(days=7)
RECENT_KEYS: Final = 200_000
WATCHED_BATCHES: Final = 1_000
"""After a repeat, keys are remembered for this many batches: where one message is sent again, more are."""
LOOKUP_BATCHES: Final = 50
"""After a repeat that nothing hinted at, every key is looked up first until this many batches had none."""
ATTEMPTS: Final = 10

Load = Callable[[Collection[UUID]], dict[UUID, Organisation]]


class _InFlight(NamedTuple):
    batch: Batch
    transaction: UsageTransaction


class UsageIngest:
    """Charges batches of records. Used by one thread.

    After any error but the ones handled here (`CheckpointConflict`, `StoreUnavailable`,
    `DeadLettersUnavailable`), call `reset` and go on from the stored positions.
    """

    def __init__(
        self,
        store: UsageStore,
        rate_card: RateCard,
        dead_letters: DeadLetters,
        clock: Clock,
        *,
        cached_organisations: int = CACHED_ORGANISATIONS,
    ) -> None:
        self.counts = Counts()
        self._store = store
        self._rate_card = rate_card
        self._dead_letters = dead_letters
        self._clock = clock
        self._cache_size = cached_organisations
        self._cache: dict[str, Organisation] = {}
        self._names: dict[UUID, str] = {}
        self._log_end: int | None = None
        self._in_flight: _InFlight | None = None
        # A hint at what to look up before the write; what is a repeat the unique index alone decides.
        # In two generations: the older one is forgotten in one step, which costs nothing per key.
        # Kept while there are repeats at all: it costs a twentieth of the whole path.
        self._batches_to_watch = 0
        self._recent_keys: set[bytes] = set()
        self._less_recent_keys: set[bytes] = set()
        self._batches_to_look_up = 0

    # ------------------------------------------------------------------------------ the fast path

    def submit(self, moves: Sequence[PositionMove], records: Sequence[Record]) -> None:
        """Charge records and move the positions past them, in one transaction.

        Returns when the batch is on its way to the database; `flush` or the next `submit` meets its
        errors.

        Raises:
            CheckpointConflict: another consumer owns a partition.
            StoreUnavailable, DeadLettersUnavailable: nothing of this batch is in, except perhaps after
                a lost commit reply: the stored positions tell.
        """
        batch = Batch(moves, self._clock())
        batch.decode(records)
        self._submit(batch)

    def flush(self) -> None:
        """Wait until all that was submitted is committed.

        Raises:
            The errors of `submit`.
        """
        self._await_commit()

    def reset(self) -> None:
        """Forget everything that is not in the database."""
        if self._in_flight is not None:
            with suppress(Exception):
                self._in_flight.transaction.finish_commit()
            self._in_flight = None
        self._cache.clear()
        self._names.clear()
        self._log_end = None

    def close(self) -> None:
        """Wait for what is in flight, and ignore its outcome."""
        self.reset()

    def _submit(self, batch: Batch) -> None:
        if self._log_end is None:
            self._log_end = self._store.log_end()
        ahead = self._set_aside_repeats_in_flight(batch)
        self._drop_likely_repeats(batch)
        self._send_letters(batch)
        self._decide(batch, self._store.load)
        decision_stands = self._await_commit()
        if not decision_stands:
            self._decide(batch, self._store.load)
        self._resolve_repeats(batch, ahead, decision_stands)
        self._in_flight = _InFlight(batch, self._begin(batch))

    def _decide(self, batch: Batch, load: Load) -> None:
        """Charge every message of the batch on forks of what is known; park those of unknown ones."""
        batch.forget_decisions()
        organisations = batch.organisations
        deciding: dict[str, tuple[Organisation, list[bytes]]] = {}
        rate_of, now = self._rate_card.rate_millionths, batch.now
        everything_loaded = False
        for message in batch.by_key.values():
            report = message.report
            known = deciding.get(report.organisation_id)
            if known is None:
                base = self._known(report.organisation_id)
                if base is None and not everything_loaded:
                    self._load_missing(batch, load)
                    everything_loaded = True
                    base = self._known(report.organisation_id)
                if base is None:
                    batch.parked.append(message)
                    continue
                organisation = organisations[report.organisation_id] = base.fork()
                known = deciding[report.organisation_id] = (organisation, [])
            organisation, keys = known
            usage = report.usage
            rate = rate_of(usage.usage_type, usage.ai_search, report.occurred_at)
            organisation.charge(report, rate, now)
            keys.append(message.key)
        for organisation, keys in deciding.values():
            events = organisation.collect_events()
            batch.events += events
            batch.charge_keys += keys
            if snapshot_is_due(organisation.version - len(events), organisation.version):
                batch.due_for_snapshot.append(organisation)
        batch.rows = self._store.rows(batch.events, batch.charge_keys)

    def _known(self, organisation_id: str) -> Organisation | None:
        """Return an organisation as the batch in flight leaves it, or as it is in the cache."""
        if self._in_flight is not None:
            ahead = self._in_flight.batch.organisations.get(organisation_id)
            if ahead is not None:
                return ahead
        return self._cache.get(organisation_id)

    def _load_missing(self, batch: Batch, load: Load) -> None:
        """Bring all organisations of the batch that the ledger knows into the cache, in one query."""
        named = {message.report.organisation_id for message in batch.by_key.values()}
        missing = {stream_id(name): name for name in named if self._known(name) is None}
        for stream, organisation in load(missing.keys()).items():
            self._remember(missing[stream], organisation)

    def _begin(self, batch: Batch) -> UsageTransaction:
        """Open the transaction, write the batch and start the commit.

        Under the write lock nobody else can park, open or append: what was decided is then final. If a
        message of the batch waits parked under the same key, that one came first, and we begin again
        without ours.
        """
        if batch.parked:
            self._drop_parked(batch, self._store.parked([message.key for message in batch.parked]))
        while True:
            batch.drop_repeats()
            self._send_letters(batch)
            for wait in batch.acknowledgement_waits:
                wait()  # before the lock is taken: a slow broker must not hold up other writers
            transaction = self._store.begin(batch.moves)
            try:
                waiting = self._write(transaction, batch)
            except BaseException:
                transaction.rollback()
                raise
            if not waiting:
                return transaction
            transaction.rollback()
            self._drop_parked(batch, waiting)
            self._decide(batch, self._store.load)

    def _write(self, transaction: UsageTransaction, batch: Batch) -> Mapping[bytes, ParkedMessage]:
        """Write the batch under the lock; or write nothing and return what waits under its keys."""
        if transaction.log_end != self._log_end and self._apply_foreign_events(transaction, batch):
            self._decide(batch, transaction.load)
        if transaction.has_parked and not batch.unpark:
            waiting = transaction.parked(list(batch.by_key))
            if waiting:
                return waiting
        if batch.parked:
            _park(transaction, batch)
        if batch.unpark:
            _unpark(transaction, batch)
        # Forks never change once decided, so these are snapshots of what is committed.
        snapshots = [organisation.snapshot() for organisation in batch.due_for_snapshot]
        transaction.start_commit(batch.events, batch.rows, snapshots)
        return {}

    def _apply_foreign_events(self, transaction: UsageTransaction, batch: Batch) -> bool:
        """Bring the cache to the transaction's log end; tell whether that touches the batch."""
        assert self._log_end is not None
        streams = transaction.streams_appended_after(self._log_end)
        self._log_end = transaction.log_end
        behind = []
        for name in [self._names[stream] for stream in streams if stream in self._names]:
            if name in batch.organisations:
                behind.append(self._cache[name])
            else:
                self._forget(name)
        if behind:
            transaction.catch_up(behind)
        return any(organisation.id in streams for organisation in batch.organisations.values()) or any(
            stream_id(message.report.organisation_id) in streams for message in batch.parked
        )

    def _await_commit(self) -> bool:
        """Wait for the batch in flight and take over its state; False if it had to be decided anew."""
        if self._in_flight is None:
            return True
        batch, transaction = self._in_flight
        self._in_flight = None
        try:
            self._apply_committed(batch, transaction.finish_commit())
        except DuplicateKey:
            self._retry_without_recorded(batch)
            return False
        return True

    def _apply_committed(self, batch: Batch, log_end: int) -> None:
        self._log_end = log_end
        for name, organisation in batch.organisations.items():
            self._remember(name, organisation)
        batch.counts.charges = len(batch.charge_keys)
        batch.counts.parked += len(batch.parked)
        batch.counts.batches = 1
        self.counts.add(batch.counts)
        # All in one pass: the first of a dict is found by stepping over all that was deleted before it.
        for name in list(islice(self._cache, max(0, len(self._cache) - self._cache_size))):
            self._forget(name)
        self._watch_for_repeats(batch)

    def _watch_for_repeats(self, batch: Batch) -> None:
        if batch.counts.repeats or batch.counts.conflicts:
            self._batches_to_watch = WATCHED_BATCHES
        elif self._batches_to_watch:
            self._batches_to_watch -= 1
        if not self._batches_to_watch:
            self._recent_keys, self._less_recent_keys = set(), set()
            return
        self._recent_keys.update(batch.charge_keys)
        if len(self._recent_keys) >= RECENT_KEYS // 2:
            self._recent_keys, self._less_recent_keys = set(), self._recent_keys

    # ------------------------------------------------------------------------ repeats and rejects

    def _retry_without_recorded(self, batch: Batch) -> None:
        """Charge a batch that met keys of earlier messages, now without those."""
        self._batches_to_look_up = LOOKUP_BATCHES
        for attempt in range(ATTEMPTS):
            self._drop_recorded(batch, batch.by_key.keys())
            self._decide(batch, self._store.load)
            try:
                self._apply_committed(batch, self._begin(batch).finish_commit())
            except DuplicateKey:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return

    def _set_aside_repeats_in_flight(self, batch: Batch) -> dict[bytes, tuple[Message, list[Message]]]:
        """Take out what the batch in flight has already; which body counts is known when that has settled.

        Returns:
            The message in flight, and those of this batch, by key.
        """
        if self._in_flight is None:
            return {}
        ahead = self._in_flight.batch.by_key
        return {key: (ahead[key], batch.remove(key)) for key in _common(batch.by_key, ahead.keys())}

    def _resolve_repeats(
        self, batch: Batch, ahead: Mapping[bytes, tuple[Message, list[Message]]], decision_stands: bool
    ) -> None:
        """Drop what was set aside, or refuse it: by what was in flight, unless the ledger knew its key."""
        recorded = {} if decision_stands or not ahead else self._store.recorded(list(ahead))
        for key, (first, messages) in ahead.items():
            if key in recorded:
                stream, charged = recorded[key]
                batch.sort_repeats(
                    messages, self._organisation_of(stream, messages), charged.charge_fingerprint
                )
            else:
                batch.sort_repeats(messages, first.report.organisation_id, first.report.charge_fingerprint)

    def _drop_likely_repeats(self, batch: Batch) -> None:
        """Drop repeats before the write, so that a few of them do not roll back every batch."""
        if self._batches_to_look_up:
            found = self._drop_recorded(batch, batch.by_key.keys())
            far = found - self._recent_keys - self._less_recent_keys
            self._batches_to_look_up = LOOKUP_BATCHES if far else self._batches_to_look_up - 1
        else:
            recent = _common(batch.by_key, self._recent_keys)
            less_recent = _common(batch.by_key, self._less_recent_keys)
            # Of what comes twice here, which body is right may be on record already.
            self._drop_recorded(batch, {*recent, *less_recent, *batch.duplicates})

    def _drop_recorded(self, batch: Batch, keys: Collection[bytes]) -> set[bytes]:
        """Drop what the ledger has under the same key, and refuse what says something else."""
        if not keys:
            return set()
        recorded = self._store.recorded(list(keys))
        for key, (stream, charged) in recorded.items():
            charged_organisation_id = self._organisation_of(stream, batch.messages(key))
            batch.drop(key, charged_organisation_id, charged.charge_fingerprint)
        return set(recorded)

    def _organisation_of(self, stream: UUID, messages: Sequence[Message]) -> str:
        """Return the organisation of a stream if it is known or a message is of it, else what none is."""
        named = (message.report.organisation_id for message in messages)
        return self._names.get(stream) or next((name for name in named if stream_id(name) == stream), "")

    def _send_letters(self, batch: Batch) -> None:
        if batch.dead_letters_to_send:
            batch.acknowledgement_waits.append(self._dead_letters.send(batch.dead_letters_to_send))
            batch.dead_letters_to_send = []

    # -------------------------------------------------------------------------- parked messages

    def charge_parked(self, limit: int = 2_000) -> int:
        """Charge parked messages whose organisation has opened; return how many were settled."""
        return self._settle_parked(self._store.parked_with_open_organisation(limit), refuse=None)

    def expire_parked(self, limit: int = 2_000) -> int:
        """Send messages to the dead-letter topic whose organisation did not open in seven days."""
        expired = self._store.parked_before(self._clock() - PARKED_MAX_AGE, limit)
        return self._settle_parked(expired, refuse="no organisation of this id opened within seven days")

    def _settle_parked(self, waiting: Sequence[ParkedMessage], refuse: str | None) -> int:
        if not waiting:
            return 0
        self.flush()
        batch = Batch((), self._clock())
        batch.unpark = [parked.dedupe_key for parked in waiting]
        for parked in waiting:
            record = record_of_parked(parked, msgspec.json.decode(parked.record_headers, type=_HEADERS))
            if refuse is not None:
                batch.refuse(record, refuse, "subject")
            else:
                report = msgspec.json.decode(parked.report, type=UsageReport)
                message = Message(parked.dedupe_key, report, record)
                batch.by_key[parked.dedupe_key] = message
        self._drop_recorded(batch, batch.by_key.keys())
        try:
            self._submit(batch)
            self.flush()
        except _TakenByAnotherConsumer:
            return 0
        return len(waiting)

    def _drop_parked(self, batch: Batch, waiting: Mapping[bytes, ParkedMessage]) -> None:
        """Drop what waits already under the same key, and refuse what says something else."""
        for key, earlier in waiting.items():
            report = msgspec.json.decode(earlier.report, type=UsageReport)
            batch.drop(key, earlier.organisation_id, report.charge_fingerprint)
        batch.parked = [message for message in batch.parked if message.key not in waiting]

    # ------------------------------------------------------------------------------------- cache

    def _remember(self, name: str, organisation: Organisation) -> None:
        cache = self._cache
        if cache.pop(name, None) is None:
            self._names[organisation.id] = name
        cache[name] = organisation  # at the end: the first of a dict is the one longest unused

    def _forget(self, name: str) -> None:
        del self._names[self._cache.pop(name).id]


_HEADERS: Final = list[tuple[str, bytes | None]]


class _TakenByAnotherConsumer(Exception):
    """The parked messages were settled meanwhile."""


def _common(batch: Mapping[bytes, Message], keys: Set[bytes]) -> Set[bytes]:
    """Return the keys that both have: nearly always none, which is cheap to see."""
    mine = batch.keys()
    return set() if mine.isdisjoint(keys) else mine & keys


def _park(transaction: UsageTransaction, batch: Batch) -> None:
    transaction.park(
        [_parked_message(message, batch) for message in batch.parked],
        [stream_id(message.report.organisation_id) for message in batch.parked],
    )


def _unpark(transaction: UsageTransaction, batch: Batch) -> None:
    if transaction.unpark(batch.unpark) != len(batch.unpark):
        raise _TakenByAnotherConsumer


def _parked_message(message: Message, batch: Batch) -> ParkedMessage:
    record = message.record
    return ParkedMessage(
        message.key,
        message.report.organisation_id,
        msgspec.json.encode(message.report),
        record.key,
        record.value,
        msgspec.json.encode(list(record.headers)),
        record.topic,
        record.partition,
        record.offset,
        batch.now,
    )
