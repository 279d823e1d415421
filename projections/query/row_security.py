"""Row-level security, a second barrier behind the API's checks: a read sees one organisation's rows only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from domain.shared.stream_keys import stream_id
from projections.connection import Connection

READER_ROLE: Final = "creditledger_reader"
"""Row-level security shows this role one organisation; see infra/migrations/0004_identities.sql."""
_BEGIN: Final = (
    f"BEGIN READ ONLY{{}}; SET LOCAL ROLE {READER_ROLE}; SET LOCAL creditledger.organisation = '{{}}'"
)
_REPEATABLE_READ: Final = ", ISOLATION LEVEL REPEATABLE READ"


@contextmanager
def repeatable_read(connection: Connection) -> Iterator[None]:
    """Make all reads on a connection (in autocommit mode) see one state of the database.

    Raises:
        psycopg.OperationalError: the database does not answer.
    """
    connection.execute(f"BEGIN READ ONLY{_REPEATABLE_READ}".encode())
    try:
        yield
    finally:
        connection.rollback()


@contextmanager
def restrict_to_organisation(
    connection: Connection, organisation_id: str | None, *, is_repeatable_read: bool = False
) -> Iterator[None]:
    """Restrict a connection (in autocommit mode) to one organisation's rows, or with None to no rows.

    All reads inside happen in one read-only transaction. With `is_repeatable_read`, several statements see
    the same state of the database.

    Raises:
        psycopg.OperationalError: the database does not answer.
    """
    stream = "" if organisation_id is None else str(stream_id(organisation_id))
    # All in one message: a restricted read costs two more round trips, not four.
    connection.execute(_BEGIN.format(_REPEATABLE_READ if is_repeatable_read else "", stream).encode())
    try:
        yield
    finally:
        connection.rollback()
