"""What all aggregates share: events at their places in a history, and decisions that become events.

One log holds the histories of all of them. An aggregate is a stream of its own; events of several may be
appended together, and are then in the log together or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar, cast
from uuid import UUID

import msgspec
from eventsourcing.persistence import NotSupportedError

from domain.shared.errors import InvariantViolation


class DomainEvent(Protocol):
    """What happened. Every fact says when it was recorded, by whom, and because of what."""

    @property
    def recorded_at(self) -> datetime: ...

    @property
    def actor(self) -> str | None: ...

    @property
    def cause(self) -> str: ...

    @property
    def balance_delta(self) -> int:
        """Credits that the fact added to its organisation's balance; negative for a charge."""

    def apply(self, aggregate: Any) -> None:
        """Change the aggregate, which already stands at the fact's version."""


class EventEnvelope(msgspec.Struct, frozen=True, gc=False):
    """A fact at its place in an aggregate's history. `originator_version` counts from 1."""

    originator_id: UUID
    originator_version: int
    event: DomainEvent

    def mutate(self, aggregate: A | None) -> A:
        """Apply the fact to the aggregate, which stands just before it.

        Without an aggregate the event is the first one of a history, or a snapshot, and makes the aggregate.

        Raises:
            InvariantViolation: the aggregate does not stand there, or no history begins with this fact.
        """
        if aggregate is None:
            return cast("A", _aggregate_from(self))
        if aggregate.id != self.originator_id or aggregate.version + 1 != self.originator_version:
            raise InvariantViolation(
                f"event {self.originator_version} of {self.originator_id} does not follow "
                f"version {aggregate.version} of {aggregate.id}"
            )
        aggregate.version = self.originator_version
        aggregate.last_recorded_at = self.event.recorded_at
        self.event.apply(aggregate)
        return aggregate


class Aggregate:
    """A history's present state. Its recorded times never go back, whatever the writers' clocks say."""

    __slots__ = ("_pending", "id", "last_recorded_at", "version")

    class Snapshot:
        """Where the library's `Application.take_snapshot` looks for how to take one."""

        @staticmethod
        def take(aggregate: Aggregate) -> EventEnvelope:
            return aggregate.snapshot()

    def __init_subclass__(cls, *, begins_with: Sequence[type[Any]] = (), **options: Any) -> None:
        """Take the types of facts that a history of the class begins with, its snapshots included."""
        super().__init_subclass__(**options)
        _CLASS_THAT_BEGINS_WITH.update(dict.fromkeys(begins_with, cls))

    def __init__(self, stream: UUID) -> None:
        self.id = stream
        self.version = 0
        self.last_recorded_at = datetime.min.replace(tzinfo=UTC)
        self._pending: list[EventEnvelope] = []

    @classmethod
    def from_event(cls, envelope: EventEnvelope) -> Aggregate:
        """Return the aggregate after the first event of its history, or as a snapshot has it.

        Raises:
            InvariantViolation: the event is not the first one.
        """
        return envelope.mutate(cls(envelope.originator_id))

    def snapshot(self) -> EventEnvelope:
        """Return the whole state as an event that replay may start with.

        Raises:
            NotSupportedError: no snapshots are kept of this class: its histories are short.
        """
        raise NotSupportedError(f"no snapshots are kept of {type(self).__name__}: its histories are short")

    def collect_events(self) -> Sequence[EventEnvelope]:
        """Hand over the events decided since the last call."""
        pending, self._pending = self._pending, []
        return pending

    def check_invariants(self) -> None:
        """Check the state.

        Raises:
            InvariantViolation: it contradicts itself.
        """

    def _record(self, event: DomainEvent) -> EventEnvelope:
        """Apply a fact at once, through the same `apply` that replay uses, and keep it to be collected.

        A time before the one of the event it follows becomes that one.
        """
        if event.recorded_at < self.last_recorded_at:
            struct = msgspec.structs.replace(cast("msgspec.Struct", event), recorded_at=self.last_recorded_at)
            event = cast("DomainEvent", struct)
        envelope = EventEnvelope(self.id, self.version + 1, event)
        envelope.mutate(self)
        self._pending.append(envelope)
        return envelope


A = TypeVar("A", bound=Aggregate)

_CLASS_THAT_BEGINS_WITH: Final[dict[type[Any], type[Aggregate]]] = {}


def _aggregate_from(envelope: EventEnvelope) -> Aggregate:
    aggregate_class = _CLASS_THAT_BEGINS_WITH.get(type(envelope.event))
    if aggregate_class is None:
        raise InvariantViolation(
            f"event {envelope.originator_version} of {envelope.originator_id} begins no history that can be"
            f" replayed: it is {type(envelope.event).__name__}"
        )
    return aggregate_class.from_event(envelope)
