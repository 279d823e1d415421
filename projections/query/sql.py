"""Shared parts of all queries: running a statement, and checks of parameters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from psycopg.rows import dict_row

from domain.credits.errors import OrganisationNotFound
from domain.shared.errors import InvalidInput
from domain.shared.stream_keys import stream_id
from projections.connection import Connection

Row = dict[str, Any]

PAGE_MAX: Final = 500


def fetch(connection: Connection, query: str, **parameters: object) -> list[Row]:
    """Return the rows of a query by column name, for any row factory of the connection."""
    cursor = connection.cursor(row_factory=dict_row, binary=True)
    return [_in_utc(row) for row in cursor.execute(query, parameters)]


def fetch_of(connection: Connection, organisation_id: str, query: str, **parameters: object) -> list[Row]:
    """Return the rows of a query about an organisation. The query gets its `stream` as a parameter.

    The query must return at least one row for an organisation that is projected.

    Raises:
        OrganisationNotFound: there are no rows.
    """
    rows = fetch(connection, query, stream=stream_id(organisation_id), **parameters)
    if not rows:
        raise OrganisationNotFound(organisation_id=organisation_id)
    return rows


def _in_utc(row: Row) -> Row:
    # The driver returns times in the session's time zone.
    return {
        name: value.astimezone(UTC) if isinstance(value, datetime) else value for name, value in row.items()
    }


def check_limit(limit: int) -> None:
    """Check the size of a page.

    Raises:
        InvalidInput: it is outside 1 to `PAGE_MAX`.
    """
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidInput("limit", f"a page holds 1 to {PAGE_MAX} entries")
