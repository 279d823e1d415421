"""Stored positions: started once, and replaced only with the expected old value."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from consumers.usage.positions import StoredPosition
from domain.shared.errors import CheckpointConflict, StoreUnavailable
from infra.event_store.datastore import LedgerDatastore
from infra.event_store.kafka_positions import PostgresKafkaPositions


@pytest.fixture
def positions(datastore: LedgerDatastore) -> PostgresKafkaPositions:
    return PostgresKafkaPositions(datastore)


def test_an_unread_topic_has_no_positions(positions: PostgresKafkaPositions) -> None:
    assert positions.positions("usage") == {}


def test_the_beginning_of_a_log_is_stored(positions: PostgresKafkaPositions) -> None:
    positions.start_log("usage", 0, "id-1", 0, None)
    positions.start_log("usage", 5, "id-1", 1_200, None)
    positions.start_log("other", 0, "id-2", 7, None)
    assert positions.positions("usage") == {
        0: StoredPosition("id-1", 0, None),
        5: StoredPosition("id-1", 1_200, None),
    }


def test_a_log_cannot_be_started_twice(positions: PostgresKafkaPositions) -> None:
    positions.start_log("usage", 0, "id-1", 0, None)
    with pytest.raises(CheckpointConflict, match="usage/0"):
        positions.start_log("usage", 0, "id-1", 0, None)


def test_a_new_log_replaces_the_expected_position(
    positions: PostgresKafkaPositions, connection: psycopg.Connection[Any]
) -> None:
    positions.start_log("usage", 0, "id-1", 0, None)
    connection.execute("UPDATE ledger.consumer_positions SET next_offset = 70, last_record_digest = 'x'")
    seen = positions.positions("usage")[0]
    assert seen == StoredPosition("id-1", 70, b"x")
    positions.start_log("usage", 0, "id-2", 3, seen)
    assert positions.positions("usage") == {0: StoredPosition("id-2", 3, None)}


@pytest.mark.parametrize("seen", [StoredPosition("id-1", 69, None), StoredPosition("id-0", 70, None)])
def test_a_position_that_moved_meanwhile_is_not_replaced(
    positions: PostgresKafkaPositions, connection: psycopg.Connection[Any], seen: StoredPosition
) -> None:
    positions.start_log("usage", 0, "id-1", 70, None)
    with pytest.raises(CheckpointConflict):
        positions.start_log("usage", 0, "id-2", 0, seen)
    assert positions.positions("usage") == {0: StoredPosition("id-1", 70, None)}


def test_replacing_what_was_never_stored_is_refused(positions: PostgresKafkaPositions) -> None:
    with pytest.raises(CheckpointConflict):
        positions.start_log("usage", 0, "id-2", 0, StoredPosition("id-1", 0, None))
    assert positions.positions("usage") == {}


def test_no_database_is_unavailable() -> None:
    datastore = LedgerDatastore("postgresql://ledger@127.0.0.1:1/none?connect_timeout=1", pool_size=1)
    datastore.pool.timeout = 0.2
    try:
        with pytest.raises(StoreUnavailable):
            PostgresKafkaPositions(datastore).positions("usage")
    finally:
        datastore.close()
