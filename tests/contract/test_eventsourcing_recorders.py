"""The library's own test cases on the ledger's recorders; what they refuse is overridden, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import (
    AggregateRecorder,
    IntegrityError,
    NotSupportedError,
    ProcessRecorder,
    StoredEvent,
    Tracking,
    TrackingRecorder,
)
from eventsourcing.tests import persistence as library
from eventsourcing.utils import Environment

from infra.event_store.datastore import LedgerDatastore
from infra.event_store.recorder import LedgerFactory, LedgerRecorder, SnapshotRecorder


class OnLedgerTables:
    """Recorders on a migrated database of the test's own, with the rights of the service."""

    datastore: LedgerDatastore

    @pytest.fixture(autouse=True)
    def _connect(self, service_database: str) -> Iterator[None]:
        self.conninfo = service_database
        self.datastore = LedgerDatastore(service_database)
        yield
        self.datastore.close()

    def create_recorder(self) -> LedgerRecorder:
        return LedgerRecorder(self.datastore)

    def factory(self) -> LedgerFactory:
        return LedgerFactory(Environment("ledger", {"DATABASE_URL": self.conninfo}))


class TestLog(OnLedgerTables, library.ApplicationRecorderTestCase[LedgerRecorder]):
    """Nothing is refused."""

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestPositionsOfOneInsertStandTogether(OnLedgerTables, library.NonInterleavingNotificationIDsBaseCase):
    """Nothing is refused."""


class WithoutPositions(LedgerRecorder):
    """An aggregate recorder returns no positions."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Any:
        super().insert_events(stored_events, **kwargs)


class TestHistories(OnLedgerTables, library.AggregateRecorderTestCase):
    """Nothing is refused."""

    def create_recorder(self) -> LedgerRecorder:
        return WithoutPositions(self.datastore)


class TestSnapshots(OnLedgerTables, library.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:  # type: ignore[override]
        return SnapshotRecorder(self.datastore, events_table_name="snapshots")

    def history(self) -> UUID:
        """Return a stream whose versions 1 to 3 are in the log."""
        stream = uuid4()
        LedgerRecorder(self.datastore).insert_events(
            [StoredEvent(stream, version, "topic", b"") for version in (1, 2, 3)]
        )
        return stream

    def test_insert_and_select(self) -> None:
        """Two expectations of the library's test are refused.

        A second snapshot of a version is no conflict: a snapshot is derived from events, so any two of one
        version are equal, and two writers may keep the same one. A snapshot of a version that the log does
        not have is not read: it is of a decision that was rolled back.
        """
        recorder = self.create_recorder()
        stream, other = self.history(), self.history()
        assert recorder.insert_events([]) is None
        assert recorder.select_events(stream, desc=True, limit=1) == []

        first, second, third = (
            StoredEvent(stream, version, f"topic{version}", f"state{version}".encode())
            for version in (1, 2, 3)
        )
        assert recorder.insert_events([first]) is None
        assert recorder.insert_events([second, third]) is None
        assert recorder.select_events(stream) == [first, second, third]
        assert isinstance(recorder.select_events(stream)[0].state, bytes)
        assert recorder.select_events(stream, desc=True, limit=1) == [third]
        assert recorder.select_events(stream, lte=2, desc=True, limit=1) == [second]
        assert recorder.select_events(stream, gt=1, lte=2) == [second]
        assert recorder.select_events(other) == []

        recorder.insert_events([first, second])
        recorder.insert_events([StoredEvent(stream, 4, "topic4", b"of a decision that was rolled back")])
        assert recorder.select_events(stream) == [first, second, third]


class TestProcessRecorder(OnLedgerTables, library.ProcessRecorderTestCase):
    """Refused as a whole: the ledger follows no other application of the library.

    What it reads comes from Kafka. Those positions are compared and set in ledger.consumer_positions, in the
    transaction that appends the events. A second table of positions would serve nobody.
    """

    def create_recorder(self) -> ProcessRecorder:  # type: ignore[override]
        return self.factory().process_recorder()

    def test_insert_select(self) -> None:
        """Refused: events with a tracking record are not appended without it."""
        recorder = LedgerRecorder(self.datastore)
        with pytest.raises(NotSupportedError, match="consumer_positions"):
            recorder.insert_events([StoredEvent(uuid4(), 1, "topic", b"")], tracking=Tracking("upstream", 1))
        assert recorder.max_notification_id() is None

    def test_has_tracking_id(self) -> None:
        """Refused: there are no tracking records."""
        with pytest.raises(NotSupportedError, match="consumer_positions"):
            self.create_recorder()

    def test_raises_when_lower_inserted_later(self) -> None:
        """Refused: a tracking record alone is not dropped silently, either."""
        with pytest.raises(NotSupportedError, match="consumer_positions"):
            LedgerRecorder(self.datastore).insert_events([], tracking=Tracking("upstream", 2))

    def test_performance(self) -> None:
        """Refused, as above: there is nothing to measure."""


class TestTrackingRecorder(OnLedgerTables, library.TrackingRecorderTestCase):
    """Refused as a whole, for the reason of `TestProcessRecorder`."""

    def create_recorder(self) -> TrackingRecorder:  # type: ignore[override]
        return self.factory().tracking_recorder()

    def test_insert_tracking(self) -> None:
        """Refused: there are no tracking records."""
        with pytest.raises(NotSupportedError, match="consumer_positions"):
            self.create_recorder()

    def test_wait(self) -> None:
        """Refused: there are no tracking records to wait for; a balance is read at a position instead."""
        with pytest.raises(NotSupportedError, match="consumer_positions"):
            self.create_recorder()


class TestTables(OnLedgerTables):
    def test_recorders_make_no_tables(self) -> None:
        """Refused: migrations make them, and the service has no right to."""
        for recorder in (self.create_recorder(), self.factory().aggregate_recorder("snapshots")):
            with pytest.raises(NotSupportedError, match="migrate"):
                recorder.create_table()

    def test_there_is_one_log(self) -> None:
        """Refused: events outside the log would be in no position, projection or audit."""
        with pytest.raises(NotSupportedError, match="besides the log"):
            self.factory().aggregate_recorder("events")

    def test_a_repeated_key_is_an_integrity_error(self) -> None:
        recorder = self.create_recorder()
        recorder.insert_events([StoredEvent(stream := uuid4(), 1, "topic", b"")])
        with pytest.raises(IntegrityError, match="first"):
            recorder.insert_events([StoredEvent(stream, 1, "topic", b"")])
