"""Seals prove that no event was changed, removed or inserted, even by the owner of the database.

A chain runs through the whole log. The link of an event is

    SHA-256(previous link || row). The previous link of the first event is 32 zero bytes, and row =
    notification_id (8 bytes) || originator_id (16) || originator_version (8)
    || dedupe_key (1, then 16 bytes; or 0) || refers_to (1, then 8 bytes; or 0)
    || length of topic (4) || topic || state

with big-endian numbers and flags of one byte. A change of any row changes every later link. A seal is a
stored link. A copy outside the database detects every later change of the history it covers, even by somebody
who can write to the database (B. Schneier and J. Kelsey, "Secure Audit Logs to Support Computer Forensics",
1999).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final

import msgspec
from psycopg.rows import tuple_row

from projections.audit.findings import Finding
from projections.connection import Connection
from projections.engine.event_log import log_end

_PAGE: Final = 20_000
_SEAL_LOCK: Final = 0x4C454447_5345414C  # "LEDGSEAL"

_ROWS: Final = r"""
    SELECT notification_id,
        int8send(notification_id) || uuid_send(originator_id) || int8send(originator_version)
        || coalesce('\x01'::bytea || uuid_send(dedupe_key), '\x00')
        || coalesce('\x01'::bytea || int8send(refers_to), '\x00')
        || int4send(octet_length(topic)) || convert_to(topic, 'UTF8') || state
    FROM ledger.events WHERE notification_id > %s AND notification_id <= %s
    ORDER BY notification_id LIMIT %s
"""
_SEALS: Final = 'SELECT "position", events, digest FROM ledger.seals ORDER BY "position"'
_INSERT_SEAL: Final = 'INSERT INTO ledger.seals ("position", events, digest) VALUES (%s, %s, %s)'


class Seal(msgspec.Struct, frozen=True):
    """The link of the event at a position. `events` is the number of events up to and including it."""

    position: int
    events: int
    digest: bytes


_GENESIS: Final = Seal(-(2**63), 0, bytes(32))
"""An event that somebody inserted below the first position has a link too."""


class ExternalSeal(msgspec.Struct, frozen=True):
    """A seal that is kept outside the database. Text form: `position:digest`, with the digest in hex."""

    position: int
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> ExternalSeal:
        """Parse the text form of a seal.

        Raises:
            ValueError: the text is not a seal.
        """
        position, _, digest = text.partition(":")
        if not position.isdecimal() or len(digest) != 64:
            raise ValueError(f"{text!r} is no seal: a position, a colon, and 64 hexadecimal digits")
        return cls(int(position), bytes.fromhex(digest))

    def __str__(self) -> str:
        return f"{self.position}:{self.digest.hex()}"


def seal(connection: Connection) -> Seal | None:
    """Seal the log up to its end and return the seal, or None if there are no events.

    Only events after the last seal are read. Takes a connection in autocommit.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_SEAL_LOCK])
        stored = _seals(connection)
        last = stored[-1] if stored else _GENESIS
        *_, latest = [last, *_chain(connection, last, log_end(connection))]
        if latest.position > last.position:
            connection.execute(_INSERT_SEAL, [latest.position, latest.events, latest.digest])
    return latest if latest.events else None


def check_seals(connection: Connection, external_seals: Iterable[ExternalSeal] = ()) -> list[Finding]:
    """Compute the chain from the first event, and return a finding for every seal that differs from it.

    Both the seals in the database and `external_seals` are checked.

    Raises:
        psycopg.OperationalError: the database was lost.
    """
    stored = [ExternalSeal(each.position, each.digest) for each in _seals(connection)]
    wanted = sorted({*stored, *external_seals}, key=lambda each: (each.position, each.digest))
    end = wanted[-1].position if wanted else 0
    links = {each.position: each.digest for each in wanted}
    found = {
        link.position: link.digest for link in _chain(connection, _GENESIS, end) if link.position in links
    }
    return [
        Finding("seal", None, _difference(each, found.get(each.position)))
        for each in wanted
        if found.get(each.position) != each.digest
    ]


def _difference(seal: ExternalSeal, found: bytes | None) -> str:
    if found is None:
        return f"{seal}: the log has no event at that position"
    return f"{seal}: the log's link there is {found.hex()}: events up to there are not what they were"


def _seals(connection: Connection) -> list[Seal]:
    rows = connection.cursor(row_factory=tuple_row).execute(_SEALS).fetchall()
    return [Seal(*row) for row in rows]


def _chain(connection: Connection, start: Seal, end: int) -> Iterator[Seal]:
    """Yield the position and link of every event after a seal, up to a position."""
    cursor = connection.cursor(row_factory=tuple_row)
    position, events, link = start.position, start.events, start.digest
    while rows := cursor.execute(_ROWS, [position, end, _PAGE], binary=True).fetchall():
        for position, row in rows:
            link = sha256(link + row).digest()
            events += 1
            yield Seal(position, events, link)
