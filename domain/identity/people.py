"""People. Events contain only opaque ids; names are stored outside the log, where they can be erased."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final, Protocol

import msgspec

SYSTEM: Final = "System"
ERASED: Final = "erased person"


class Person(msgspec.Struct, frozen=True):
    """A person, as the platform's sign-in reported them. Name and email are None for an erased person."""

    user_id: str
    name: str | None
    email: str | None
    updated_at: datetime
    erased_at: datetime | None


class ActorNames:
    """Display names of actors, as far as they are known."""

    def __init__(self, known: Mapping[str, str | None]) -> None:
        """Take names by user id. The name of an erased person is None."""
        self._known = known

    def of(self, user_id: str | None) -> str:
        """Return a name: "System" for None, "erased person" for an erased one, the id for an unknown one."""
        if user_id is None:
            return SYSTEM
        name = self._known.get(user_id, user_id)
        return ERASED if name is None else name


class People(Protocol):
    """The stored people. Every operation raises psycopg.OperationalError if the database does not answer."""

    def put(self, user_id: str, name: str, email: str | None, at: datetime) -> Person:
        """Store a person's name and email.

        Raises:
            PersonErased: the person was erased.
        """

    def get(self, user_id: str) -> Person:
        """Return a person.

        Raises:
            PersonNotFound: no person with this id is known.
        """

    def erase(self, user_id: str, at: datetime) -> None:
        """Erase a person's name and email for good. Ids that are not known are accepted too."""

    def names(self, user_ids: Collection[str | None]) -> ActorNames:
        """Return the names of the people with these ids."""
