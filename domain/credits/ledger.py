"""The ledger: loads organisations, as they are or were, and records what they decide.

The commands are in `domain.credits.commands` and `domain.credits.hold_commands`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import DomainEventProtocol, MutableOrImmutableAggregate
from eventsourcing.persistence import EventStore as LibraryEventStore
from eventsourcing.persistence import Recording

from domain.credits.command_result import CommandResult
from domain.credits.errors import HoldClosed, OrganisationNotFound, PurchaseAlreadyRecorded
from domain.credits.organisation import Organisation, evolve
from domain.credits.organisation_state import SNAPSHOT_EVERY
from domain.pricing.price_book import PriceBook
from domain.shared.aggregate import Aggregate, EventEnvelope
from domain.shared.command_runner import CommandRunner, RecordedResult
from domain.shared.errors import DuplicateKey
from domain.shared.event_store import EventStore, IdempotencyKey
from domain.shared.stream_keys import stream_id

Decision = Callable[[Organisation], CommandResult]
DuplicateKeyError = type[DuplicateKey] | type[PurchaseAlreadyRecorded] | type[HoldClosed]
"""The error to raise if an event's dedupe key is in the ledger already."""


class Ledger(Application[UUID]):
    """Loads organisations and records their decisions."""

    name = "ledger"
    is_snapshotting_enabled = True
    snapshotting_intervals: ClassVar[dict[type[MutableOrImmutableAggregate[Any]], int]] = {
        Organisation: SNAPSHOT_EVERY
    }
    events: EventStore

    def __init__(self, env: Mapping[str, str] | None = None, prices: PriceBook | None = None) -> None:
        super().__init__(env)
        self.prices = prices or PriceBook()
        self.runner = CommandRunner(self.events, takes_snapshots=self.snapshots is not None)

    def construct_event_store(self) -> EventStore:
        """Return the event store, of which commands need more than the library does."""
        store: LibraryEventStore[UUID] = super().construct_event_store()
        assert isinstance(store, EventStore), "PERSISTENCE_MODULE is not the ledger's own"
        return store

    def save(
        self, *objs: MutableOrImmutableAggregate[UUID] | DomainEventProtocol[UUID] | None, **kwargs: Any
    ) -> list[Recording[UUID]]:
        """Append what aggregates decided, without an idempotency key and without deciding again.

        Raises:
            InvariantViolation: the state of one of them contradicts itself; nothing is appended.
            VersionConflict, DuplicateKey, StoreUnavailable.
        """
        for aggregate in objs:
            if isinstance(aggregate, Aggregate):
                aggregate.check_invariants()
        return super().save(*objs, **kwargs)

    def organisation(self, organisation_id: str, *, version: int | None = None) -> Organisation:
        """Return the organisation as of a version of its history, or as it is now.

        Raises:
            OrganisationNotFound: nobody opened it, or not by that version.
        """
        stream = stream_id(organisation_id)

        def load() -> Organisation:
            found: Organisation = self.repository.get(stream, version=version, projector_func=replay)
            return found

        try:
            return self.events.current(stream, load) if version is None else load()
        except AggregateNotFoundError:
            raise OrganisationNotFound(f"no organisation has the id {organisation_id!r}") from None

    def organisation_as_of(self, organisation_id: str, moment: datetime) -> Organisation:
        """Return the organisation as the ledger knew it at a moment: all it had recorded by then.

        Raises:
            OrganisationNotFound: it was not open yet.
        """
        latest = self.organisation(organisation_id)
        recorded_by_then, after = 0, latest.version + 1
        while after - recorded_by_then > 1:  # bisection: a million events take twenty reads
            middle = (recorded_by_then + after) // 2
            envelope = self.event_of(latest, middle)
            if envelope is not None and envelope.event.recorded_at <= moment:
                recorded_by_then = middle
            else:
                after = middle
        if recorded_by_then == 0:
            raise OrganisationNotFound(f"{organisation_id!r} was not open at {moment.isoformat()}")
        return self.organisation(organisation_id, version=recorded_by_then)

    def event_of(self, organisation: Organisation, version: int) -> EventEnvelope | None:
        """Return the event of a version up to the organisation's own; None if there is no such version."""
        if not 1 <= version <= organisation.version:
            return None
        events = self.events.get(organisation.id, gt=version - 1, lte=version)
        return next(iter(events), None)

    def change(
        self,
        organisation_id: str,
        decision: Decision,
        idempotency_key: IdempotencyKey | None,
        *,
        on_duplicate_key: DuplicateKeyError = DuplicateKey,
    ) -> RecordedResult[CommandResult]:
        """Let the newest state of an organisation decide, and record what it decided, at most once.

        Raises:
            OrganisationNotFound, IdempotencyConflict, StoreUnavailable, `on_duplicate_key`.
            Errors of the decision.
        """

        def decide() -> tuple[Sequence[Aggregate], CommandResult]:
            organisation = self.organisation(organisation_id)
            return [organisation], decision(organisation)

        return self.runner.run(decide, idempotency_key, CommandResult, on_duplicate_key=on_duplicate_key)


def replay(organisation: Organisation | None, events: Any) -> Organisation | None:
    """Apply events in order: the library's projector, without its checks per event."""
    for envelope in events:
        organisation = evolve(organisation, envelope)
    return organisation
