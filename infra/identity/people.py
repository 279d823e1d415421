"""People in PostgreSQL.

The database role that reads for members cannot read this table. A member sees only the names of actors in
rows that the member may see.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Final

from psycopg.rows import class_row, tuple_row

from domain.identity.errors import PersonErased, PersonNotFound
from domain.identity.people import ActorNames, Person
from projections.connection import Connection

_COLUMNS: Final = "user_id, name, email, updated_at, erased_at"
# An erased person stays erased, even if a concurrent sign-in sends the name again.
_PUT: Final = f"""
    INSERT INTO ledger.people AS person (user_id, name, email, updated_at) VALUES (%s, %s, %s, %s)
    ON CONFLICT (user_id) DO UPDATE
    SET name = excluded.name, email = excluded.email, updated_at = excluded.updated_at
    WHERE person.erased_at IS NULL
    RETURNING {_COLUMNS}
"""  # noqa: S608 - of the columns above
_GET: Final = f"SELECT {_COLUMNS} FROM ledger.people WHERE user_id = %s"  # noqa: S608
_ERASE: Final = """
    INSERT INTO ledger.people AS person (user_id, updated_at, erased_at) VALUES (%(user_id)s, %(at)s, %(at)s)
    ON CONFLICT (user_id) DO UPDATE
    SET name = NULL, email = NULL, updated_at = excluded.updated_at, erased_at = excluded.erased_at
    WHERE person.erased_at IS NULL
"""
_NAMES: Final = "SELECT user_id, name FROM ledger.people WHERE user_id = ANY(%s)"


class PostgresPeople:
    """Implements `domain.identity.people.People`.

    `connect` returns a context manager of an autocommit connection.
    """

    def __init__(self, connect: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._connect = connect

    def put(self, user_id: str, name: str, email: str | None, at: datetime) -> Person:
        with self._connect() as connection:
            cursor = connection.cursor(row_factory=class_row(Person))
            person = cursor.execute(_PUT, [user_id, name, email, at]).fetchone()
        if person is None:
            raise PersonErased
        return person

    def get(self, user_id: str) -> Person:
        with self._connect() as connection:
            person = connection.cursor(row_factory=class_row(Person)).execute(_GET, [user_id]).fetchone()
        if person is None:
            raise PersonNotFound
        return person

    def erase(self, user_id: str, at: datetime) -> None:
        with self._connect() as connection:
            connection.execute(_ERASE, {"user_id": user_id, "at": at})

    def names(self, user_ids: Collection[str | None]) -> ActorNames:
        requested = list({each for each in user_ids if each is not None})
        if not requested:
            return ActorNames({})
        with self._connect() as connection:
            found = connection.cursor(row_factory=tuple_row).execute(_NAMES, [requested])
            return ActorNames(dict(found.fetchall()))
