"""The ingest of usage: decodes, decides and encodes a batch while the database commits the previous one.

The cache of organisations has committed state only, as of `log_end`. A batch decides on forks of cached
organisations, or on forks of the batch in flight. After the commit the forks become the cache. After a
failure the forks are dropped, and so are the decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

from consumers.usage.batch import Batch, Counts, Message, Record
from consumers.usage.parking import (
    TakenByAnotherConsumer,
    park,
    record_of_parked,
    report_of_parked,
    unpark,
)
from consumers.usage.ports import (
    DeadLetters,
    ParkedMessage,
    PositionMove,
    UsageStore,
    UsageTransaction,
)
from consumers.usage.recent_keys import RecentKeys
from domain.credits.organisation import Organisation
from domain.pricing.rate_card import RateCard
from domain.shared.errors import DuplicateKey
from domain.shared.event_store import Clock
from domain.shared.stream_keys import stream_id

CACHED_ORGANISATIONS: Final = 100_000
PARKED_MAX_AGE: Final = timedelta(days=7)
ATTEMPTS: Final = 10

Load = Callable[[Collection[UUID]], dict[UUID, Organisation]]


class _InFlight(NamedTuple):
    batch: Batch
    transaction: UsageTransaction


class UsageIngest:
    """Charges batches of records. Only one thread may use it.

    After an error (such as `CheckpointConflict`, `StoreUnavailable` or `DeadLettersUnavailable`), call
    `reset` and resume at the stored positions.
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
        self._recent_keys = RecentKeys()

    # ------------------------------------------------------------------------------ the fast path

    def submit(self, moves: Sequence[PositionMove], records: Sequence[Record]) -> None:
        """Charge records and move the positions past them, in one transaction.

        Returns when the database has started the commit. Commit errors are raised by the next `submit` or by
        `flush`.

        Raises:
            CheckpointConflict: another consumer owns a partition.
            StoreUnavailable, DeadLettersUnavailable: the batch was not committed. If the reply to a commit
                was lost, the batch may be committed: check the stored positions.
        """
        batch = Batch(moves, self._clock())
        batch.decode(records)
        self._submit(batch)

    def flush(self) -> None:
        """Wait until all submitted batches are committed.

        Raises:
            The errors of `submit`.
        """
        self._await_commit()

    def reset(self) -> None:
        """Drop all state that is not in the database."""
        if self._in_flight is not None:
            with suppress(Exception):
                self._in_flight.transaction.finish_commit()
            self._in_flight = None
        self._cache.clear()
        self._names.clear()
        self._log_end = None

    def close(self) -> None:
        """Wait for the batch in flight, and ignore its result."""
        self.reset()

    def _submit(self, batch: Batch) -> None:
        if self._log_end is None:
            self._log_end = self._store.log_end()
        repeats = self._remove_repeats_in_flight(batch)
        self._drop_likely_repeats(batch)
        self._send_dead_letters(batch)
        self._decide(batch, self._store.load)
        decision_is_valid = self._await_commit()
        if not decision_is_valid:
            self._decide(batch, self._store.load)
        self._resolve_repeats(batch, repeats, decision_is_valid)
        self._in_flight = _InFlight(batch, self._begin(batch))

    def _decide(self, batch: Batch, load: Load) -> None:
        """Charge every message of the batch on forks of organisations.

        Parks messages of unopened organisations.
        """
        batch.forget_decisions()
        organisations = batch.organisations
        forks: dict[str, tuple[Organisation, list[bytes]]] = {}
        rate_of, now = self._rate_card.rate_millionths, batch.now
        is_loaded = False
        for message in batch.by_key.values():
            report = message.report
            fork = forks.get(report.organisation_id)
            if fork is None:
                base = self._known(report.organisation_id)
                if base is None and not is_loaded:
                    self._load_missing(batch, load)
                    is_loaded = True
                    base = self._known(report.organisation_id)
                if base is None:
                    batch.parked.append(message)
                    continue
                organisation = organisations[report.organisation_id] = base.fork()
                fork = forks[report.organisation_id] = (organisation, [])
            organisation, keys = fork
            usage = report.usage
            rate = rate_of(usage.usage_type, usage.ai_search, report.occurred_at)
            organisation.charge(report, rate, now)
            keys.append(message.key)
        for organisation, keys in forks.values():
            events = organisation.collect_events()
            batch.events += events
            batch.charge_keys += keys
            snapshot = organisation.due_snapshot(organisation.version - len(events))
            if snapshot is not None:
                batch.snapshots.append(snapshot)
        batch.rows = self._store.rows(batch.events, batch.charge_keys)

    def _known(self, organisation_id: str) -> Organisation | None:
        """Return an organisation from the batch in flight, else from the cache, else None."""
        if self._in_flight is not None:
            in_flight = self._in_flight.batch.organisations.get(organisation_id)
            if in_flight is not None:
                return in_flight
        return self._cache.get(organisation_id)

    def _load_missing(self, batch: Batch, load: Load) -> None:
        """Load all uncached organisations of the batch into the cache, in one query."""
        named = {message.report.organisation_id for message in batch.by_key.values()}
        missing = {stream_id(name): name for name in named if self._known(name) is None}
        for stream, organisation in load(missing.keys()).items():
            self._remember(missing[stream], organisation)

    def _begin(self, batch: Batch) -> UsageTransaction:
        """Open the transaction, write the batch and start the commit.

        Under the write lock no other writer can park, open or append, so the decisions are final. If a parked
        message has the same key as a message of the batch, the parked one came first: the batch starts again
        without its own.
        """
        if batch.parked:
            self._drop_parked(batch, self._store.parked([message.key for message in batch.parked]))
        while True:
            batch.drop_repeats()
            self._send_dead_letters(batch)
            for wait in batch.acknowledgement_waits:
                wait()  # before taking the lock: a slow broker must not block other writers
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
        """Write the batch under the lock, or write nothing and return the parked messages with its keys."""
        if transaction.log_end != self._log_end and self._apply_foreign_events(transaction, batch):
            self._decide(batch, transaction.load)
        if transaction.has_parked and not batch.unpark:
            waiting = transaction.parked(list(batch.by_key))
            if waiting:
                return waiting
        if batch.parked:
            park(transaction, batch)
        if batch.unpark:
            unpark(transaction, batch)
        # Forks do not change after the decisions, so these are snapshots of the committed state.
        transaction.start_commit(batch.events, batch.rows, batch.snapshots)
        return {}

    def _apply_foreign_events(self, transaction: UsageTransaction, batch: Batch) -> bool:
        """Update the cache to the transaction's log end.

        Return whether that changes organisations of the batch.
        """
        assert self._log_end is not None
        streams = transaction.streams_appended_after(self._log_end)
        self._log_end = transaction.log_end
        outdated = []
        for name in [self._names[stream] for stream in streams if stream in self._names]:
            if name in batch.organisations:
                outdated.append(self._cache[name])
            else:
                self._forget(name)
        if outdated:
            transaction.catch_up(outdated)
        return any(organisation.id in streams for organisation in batch.organisations.values()) or any(
            stream_id(message.report.organisation_id) in streams for message in batch.parked
        )

    def _await_commit(self) -> bool:
        """Wait for the batch in flight and apply its state. Return False if it had to be decided again."""
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
        # In one pass: finding the first key of a dict steps over all deleted entries before it.
        for name in list(islice(self._cache, max(0, len(self._cache) - self._cache_size))):
            self._forget(name)
        self._recent_keys.remember(batch)

    # ------------------------------------------------------------------------ repeats and rejects

    def _retry_without_recorded(self, batch: Batch) -> None:
        """Charge a batch again without the messages that are already recorded."""
        self._recent_keys.look_up_all()
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

    def _remove_repeats_in_flight(self, batch: Batch) -> dict[bytes, tuple[Message, list[Message]]]:
        """Remove messages whose keys are in the batch in flight. Its commit decides which content counts.

        Returns:
            The message in flight and the messages of this batch, by key.
        """
        if self._in_flight is None:
            return {}
        in_flight = self._in_flight.batch.by_key
        return {key: (in_flight[key], batch.remove(key)) for key in batch.common_keys(in_flight.keys())}

    def _resolve_repeats(
        self, batch: Batch, repeats: Mapping[bytes, tuple[Message, list[Message]]], decision_is_valid: bool
    ) -> None:
        """Drop or refuse the removed messages, by the recorded content, else by the content in flight."""
        recorded = {} if decision_is_valid or not repeats else self._store.recorded(list(repeats))
        for key, (first, messages) in repeats.items():
            if key in recorded:
                stream, charged = recorded[key]
                batch.count_or_refuse_repeats(
                    messages, self._organisation_of(stream, messages), charged.charge_fingerprint
                )
            else:
                batch.count_or_refuse_repeats(
                    messages, first.report.organisation_id, first.report.charge_fingerprint
                )

    def _drop_likely_repeats(self, batch: Batch) -> None:
        """Drop likely repeats before the write, so that a few repeats do not roll back every batch."""
        keys = self._recent_keys.keys_to_look_up(batch)
        self._recent_keys.looked_up(self._drop_recorded(batch, keys))

    def _drop_recorded(self, batch: Batch, keys: Collection[bytes]) -> set[bytes]:
        """Drop messages whose keys are recorded.

        Refuses those with different content. Returns the recorded keys.
        """
        if not keys:
            return set()
        recorded = self._store.recorded(list(keys))
        for key, (stream, charged) in recorded.items():
            charged_organisation_id = self._organisation_of(stream, batch.messages(key))
            batch.drop(key, charged_organisation_id, charged.charge_fingerprint)
        return set(recorded)

    def _organisation_of(self, stream: UUID, messages: Sequence[Message]) -> str:
        """Return the organisation id of a stream, from the cache or the messages, else an empty string."""
        named = (message.report.organisation_id for message in messages)
        return self._names.get(stream) or next((name for name in named if stream_id(name) == stream), "")

    def _send_dead_letters(self, batch: Batch) -> None:
        if batch.dead_letters_to_send:
            batch.acknowledgement_waits.append(self._dead_letters.send(batch.dead_letters_to_send))
            batch.dead_letters_to_send = []

    # -------------------------------------------------------------------------- parked messages

    def charge_parked(self, limit: int = 2_000) -> int:
        """Charge parked messages whose organisation is now open. Return their number."""
        return self._process_parked(self._store.parked_with_open_organisation(limit), refuse=None)

    def expire_parked(self, limit: int = 2_000) -> int:
        """Send messages to the dead-letter topic if their organisation did not open within seven days."""
        expired = self._store.parked_before(self._clock() - PARKED_MAX_AGE, limit)
        return self._process_parked(expired, refuse="no organisation with this id opened within seven days")

    def _process_parked(self, waiting: Sequence[ParkedMessage], refuse: str | None) -> int:
        if not waiting:
            return 0
        self.flush()
        batch = Batch((), self._clock())
        batch.unpark = [parked.dedupe_key for parked in waiting]
        for parked in waiting:
            record = record_of_parked(parked)
            if refuse is not None:
                batch.refuse(record, refuse, "subject")
            else:
                message = Message(parked.dedupe_key, report_of_parked(parked), record)
                batch.by_key[parked.dedupe_key] = message
        self._drop_recorded(batch, batch.by_key.keys())
        try:
            self._submit(batch)
            self.flush()
        except TakenByAnotherConsumer:
            return 0
        return len(waiting)

    def _drop_parked(self, batch: Batch, waiting: Mapping[bytes, ParkedMessage]) -> None:
        """Drop messages with the key of a parked message. Refuses those with different content."""
        for key, earlier in waiting.items():
            batch.drop(key, earlier.organisation_id, report_of_parked(earlier).charge_fingerprint)
        batch.parked = [message for message in batch.parked if message.key not in waiting]

    # ------------------------------------------------------------------------------------- cache

    def _remember(self, name: str, organisation: Organisation) -> None:
        cache = self._cache
        if cache.pop(name, None) is None:
            self._names[organisation.id] = name
        cache[name] = organisation  # moves to the end: the first entry is the least recently used

    def _forget(self, name: str) -> None:
        del self._names[self._cache.pop(name).id]
