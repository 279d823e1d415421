"""People in PostgreSQL. The role that reads for members has no right to the table: names come by the ids of
actors in rows that a member may see, and in no other way.
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
# Nothing of an erased person comes back, whatever a sign-in under way still sends.
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
    """See `domain.identity.people.People`. `connecting` lends a connection in autocommit mode."""

    def __init__(self, connecting: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._connecting = connecting

    def put(self, user_id: str, name: str, email: str | None, at: datetime) -> Person:
        with self._connecting() as connection:
            cursor = connection.cursor(row_factory=class_row(Person))
            person = cursor.execute(_PUT, [user_id, name, email, at]).fetchone()
        if person is None:
            raise PersonErased
        return person

    def get(self, user_id: str) -> Person:
        with self._connecting() as connection:
            person = connection.cursor(row_factory=class_row(Person)).execute(_GET, [user_id]).fetchone()
        if person is None:
            raise PersonNotFound
        return person

    def erase(self, user_id: str, at: datetime) -> None:
        with self._connecting() as connection:
            connection.execute(_ERASE, {"user_id": user_id, "at": at})

    def names(self, user_ids: Collection[str | None]) -> ActorNames:
        asked = list({each for each in user_ids if each is not None})
        if not asked:
            return ActorNames({})
        with self._connecting() as connection:
            found = connection.cursor(row_factory=tuple_row).execute(_NAMES, [asked])
            return ActorNames(dict(found.fetchall()))
