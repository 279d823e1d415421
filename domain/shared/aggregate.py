"""The base of all aggregates: events, their envelopes, and how an event changes an aggregate.

One log contains the histories of all aggregates. Each aggregate is one stream. Events of several aggregates
may be appended together: then the log gets all of them or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Protocol, TypeVar, cast
from uuid import UUID

import msgspec
from eventsourcing.persistence import NotSupportedError

from domain.shared.errors import InvariantViolation


class DomainEvent(Protocol):
    """A domain event, with its time of recording, actor and cause. It knows no aggregate."""

    @property
    def recorded_at(self) -> datetime: ...

    @property
    def actor(self) -> str | None: ...

    @property
    def cause(self) -> str: ...

    @property
    def balance_delta(self) -> int:
        """Credits that the event adds to its organisation's balance; negative for a charge."""


class EventHeader(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The first fields of every event, filled in from `CommandContext.event_header`."""

    recorded_at: datetime
    actor: str | None
    cause: str

    @property
    def balance_delta(self) -> int:
        """Credits that the event adds to its organisation's balance."""
        return 0


class EventEnvelope(msgspec.Struct, frozen=True, gc=False):
    """An event with its place in an aggregate's history. `originator_version` counts from 1."""

    originator_id: UUID
    originator_version: int
    event: DomainEvent

    def mutate(self, aggregate: A | None) -> A:
        """Apply the event to the aggregate, which must be at the version before it.

        Without an aggregate, the event must be the first of a history, or a snapshot: it creates one.

        Raises:
            InvariantViolation: the aggregate is another one, is at another version, or has no such event; or
                no history starts with this event.
        """
        event = self.event
        if aggregate is None:
            return cast("A", _aggregate_from(self))
        # Comparing two UUIDs themselves takes ten times as long as comparing their integers.
        if aggregate.id.int != self.originator_id.int or aggregate.version + 1 != self.originator_version:
            raise InvariantViolation(
                f"event {self.originator_version} of {self.originator_id} does not follow "
                f"version {aggregate.version} of {aggregate.id}"
            )
        apply = aggregate.APPLY.get(type(event))
        if apply is None:
            raise InvariantViolation(
                f"{type(event).__name__} is not part of a history of {type(aggregate).__name__}"
            )
        aggregate.version = self.originator_version
        aggregate.last_recorded_at = event.recorded_at
        apply(aggregate, event)
        return aggregate


class Aggregate:
    """State that follows from a stream of events. Recorded times never decrease, even if a clock does."""

    APPLY: ClassVar[Mapping[type, Callable[[Any, Any], None]]] = {}
    """The function that changes the state, by event type. Its arguments are the aggregate and the event.

    When it is called, the aggregate already has the event's version.
    """

    __slots__ = ("_pending", "id", "last_recorded_at", "version")

    class Snapshot:
        """Where the library's `Application.take_snapshot` looks for how to take one."""

        @staticmethod
        def take(aggregate: Aggregate) -> EventEnvelope:
            return aggregate.snapshot()

    def __init_subclass__(cls, *, first_events: Sequence[type[Any]] = (), **options: Any) -> None:
        """Take the possible first events of the class: event types, and the type of its snapshots."""
        super().__init_subclass__(**options)
        _CLASS_BY_FIRST_EVENT.update(dict.fromkeys(first_events, cls))

    def __init__(self, stream: UUID) -> None:
        self.id = stream
        self.version = 0
        self.last_recorded_at = datetime.min.replace(tzinfo=UTC)
        self._pending: list[EventEnvelope] = []

    def _continue_after(self, envelope: EventEnvelope) -> None:
        """Take the version and the time of an event that is not applied, such as a snapshot."""
        self.version = envelope.originator_version
        self.last_recorded_at = envelope.event.recorded_at

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

    def due_snapshot(self, version_before: int) -> EventEnvelope | None:
        """Return a snapshot if one is due for the events since a version. This class has none."""
        return None

    def collect_events(self) -> Sequence[EventEnvelope]:
        """Return the events that were recorded since the last call."""
        pending, self._pending = self._pending, []
        return pending

    def check_invariants(self) -> None:
        """Check the state.

        Raises:
            InvariantViolation: it contradicts itself.
        """

    def _record(self, event: DomainEvent) -> EventEnvelope:
        """Apply an event immediately, like a replay, and keep it for `collect_events`.

        If its time is before the previous event's time, it gets the previous event's time.
        """
        if event.recorded_at < self.last_recorded_at:
            struct = msgspec.structs.replace(cast("msgspec.Struct", event), recorded_at=self.last_recorded_at)
            event = cast("DomainEvent", struct)
        envelope = EventEnvelope(self.id, self.version + 1, event)
        envelope.mutate(self)
        self._pending.append(envelope)
        return envelope


A = TypeVar("A", bound=Aggregate)

_CLASS_BY_FIRST_EVENT: Final[dict[type[Any], type[Aggregate]]] = {}


def _aggregate_from(envelope: EventEnvelope) -> Aggregate:
    aggregate_class = _CLASS_BY_FIRST_EVENT.get(type(envelope.event))
    if aggregate_class is None:
        raise InvariantViolation(
            f"event {envelope.originator_version} of {envelope.originator_id} begins no history that can be"
            f" replayed: it is {type(envelope.event).__name__}"
        )
    return aggregate_class.from_event(envelope)
