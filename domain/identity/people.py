"""People, whom events know by opaque ids: their names lie outside the log, where they can be erased."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final, Protocol

import msgspec

SYSTEM: Final = "System"
ERASED: Final = "erased person"


class Person(msgspec.Struct, frozen=True):
    """Somebody, as the platform's sign-in told of them; name and email are None once they are erased."""

    user_id: str
    name: str | None
    email: str | None
    updated_at: datetime
    erased_at: datetime | None


class ActorNames:
    """How actors are shown to people: their names as far as they are known."""

    def __init__(self, known: Mapping[str, str | None]) -> None:
        """Take names by user id; None is an erased person's."""
        self._known = known

    def of(self, user_id: str | None) -> str:
        """Return a name: "System" of no user, "erased person" of who was erased, the id of who is unknown."""
        if user_id is None:
            return SYSTEM
        name = self._known.get(user_id, user_id)
        return ERASED if name is None else name


class People(Protocol):
    """All people. Every operation raises psycopg.OperationalError without a database."""

    def put(self, user_id: str, name: str, email: str | None, at: datetime) -> Person:
        """Keep what somebody is called.

        Raises:
            PersonErased: they were erased, and stay so.
        """

    def get(self, user_id: str) -> Person:
        """Return somebody.

        Raises:
            PersonNotFound: nobody has told of them.
        """

    def erase(self, user_id: str, at: datetime) -> None:
        """Forget the name and email of somebody, for good: also of who was not known."""

    def names(self, user_ids: Collection[str | None]) -> ActorNames:
        """Return the names of these, and of nobody else."""
