"""Writes rows of projected tables.

A row is a struct with one field per column. All rows of a statement are sent as one JSON array, which
PostgreSQL converts to rows of the table's type. For a batch this is as fast as COPY or unnest, and it works
for every column type, arrays included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from projections.connection import Connection

_encode: Final = msgspec.json.Encoder().encode


def write_rows(connection: Connection, statement: str, rows: Sequence[msgspec.Struct]) -> int:
    """Run a statement whose only parameter is the rows, and return the number of rows written."""
    if not rows:
        return 0
    return connection.execute(statement, [_encode(rows).decode()]).rowcount
