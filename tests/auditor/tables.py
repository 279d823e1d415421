"""Reads the projected tables with plain SQL, keyed by organisation instead of stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from tests.auditor.statement_rows import Table

KEYS = {
    "balances": (),
    "usage_months": ("month",),
    "usage_days": ("day", "month"),
    "event_usage": ("month", "event_id"),
    "event_totals": ("event_id",),
}


def read_table(connection: psycopg.Connection[Any], name: str, names: Mapping[UUID, str]) -> Table:
    """Return a table of the projections by organisation and the rest of its key."""
    return _read(connection, f"SELECT * FROM projections.{name}", KEYS[name], names)


def read_transactions(connection: psycopg.Connection[Any], kind: str, names: Mapping[UUID, str]) -> Table:
    """Return one kind of the list of transactions by organisation and reference."""
    query = f"SELECT * FROM projections.transactions WHERE kind = '{kind}'"
    return _read(connection, query, ("reference",), names)


def _read(
    connection: psycopg.Connection[Any], query: str, key: tuple[str, ...], names: Mapping[UUID, str]
) -> Table:
    return {
        (names.get(row["stream"], str(row["stream"])), *(row[column] for column in key)): row
        for row in connection.cursor(row_factory=dict_row).execute(query)
    }


def read_parked(connection: psycopg.Connection[Any]) -> Table:
    """Return the parked messages, by the place of their record."""
    query = """
        SELECT partition, record_offset, organisation_id, record_key, record_value
        FROM ledger.parked_messages
    """
    return {
        (row["partition"], row["record_offset"]): row
        for row in connection.cursor(row_factory=dict_row).execute(query)
    }


def read_consumer_positions(connection: psycopg.Connection[Any], topic: str) -> Table:
    """Return the consumer's positions, by partition."""
    query = "SELECT partition, next_offset FROM ledger.consumer_positions WHERE topic = %s"
    return {
        (row["partition"],): row for row in connection.cursor(row_factory=dict_row).execute(query, [topic])
    }


def read_projection_positions(connection: psycopg.Connection[Any]) -> Table:
    """Return the positions of the projections, by name."""
    query = 'SELECT projection, "position" FROM projections.positions'
    return {(row["projection"],): row for row in connection.cursor(row_factory=dict_row).execute(query)}
