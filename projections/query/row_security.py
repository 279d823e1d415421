"""A wall behind the API's own checks: a read for an organisation sees rows of no other, whatever it asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from domain.shared.stream_keys import stream_id
from projections.connection import Connection

READER_ROLE: Final = "creditledger_reader"
"""Row-level security shows it one organisation; see infra/migrations/0004_identities.sql."""
_BEGIN: Final = (
    f"BEGIN READ ONLY{{}}; SET LOCAL ROLE {READER_ROLE}; SET LOCAL creditledger.organisation = '{{}}'"
)
_REPEATABLE_READ: Final = ", ISOLATION LEVEL REPEATABLE READ"


@contextmanager
def repeatable_read(connection: Connection) -> Iterator[None]:
    """Let all that is read on a connection (in autocommit mode) be of one state of the database.

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
    """Let a connection (in autocommit mode) see one organisation's rows, or with None no rows at all.

    What is read meanwhile is read in one transaction, which can write nothing; `is_repeatable_read` keeps several
    statements from seeing what was committed between them.

    Raises:
        psycopg.OperationalError: the database does not answer.
    """
    stream = "" if organisation_id is None else str(stream_id(organisation_id))
    # All in one message: the wall costs a read two round trips, not four.
    connection.execute(_BEGIN.format(_REPEATABLE_READ if is_repeatable_read else "", stream).encode())
    try:
        yield
    finally:
        connection.rollback()
