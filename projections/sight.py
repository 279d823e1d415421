"""A wall behind the API's own checks: a read for an organisation sees rows of no other, whatever it asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from domain.identity import stream_id

READER_ROLE: Final = "creditledger_reader"
"""Row-level security shows it one organisation; see infra/migrations/0004_identities.sql."""
_BEGIN: Final = (
    f"BEGIN READ ONLY; SET LOCAL ROLE {READER_ROLE}; SET LOCAL creditledger.organisation = '%s'".encode()
)

Connection = psycopg.Connection[Any]


@contextmanager
def seeing_only(connection: Connection, organisation_id: str | None) -> Iterator[None]:
    """Let a connection (in autocommit mode) see one organisation's rows, or with None no rows at all.

    What is read meanwhile is read in one transaction, which can write nothing.

    Raises:
        psycopg.OperationalError: the database does not answer.
    """
    stream = "" if organisation_id is None else str(stream_id(organisation_id))
    # All in one message: the wall costs a read two round trips, not four.
    connection.execute(_BEGIN % stream.encode())
    try:
        yield
    finally:
        connection.rollback()
