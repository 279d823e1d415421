"""Rows of projected tables on their way to the database.

A row is a struct named like its columns. All rows of a statement travel as one JSON array, which
PostgreSQL turns back into rows of the table's own type: as fast as COPY or unnest for a batch, and every
column type works, arrays included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from projections.connection import Connection

_encode: Final = msgspec.json.Encoder().encode


def write_rows(connection: Connection, statement: str, rows: Sequence[msgspec.Struct]) -> int:
    """Run a statement whose only parameter is the rows, and return how many it wrote."""
    if not rows:
        return 0
    return connection.execute(statement, [_encode(rows).decode()]).rowcount
