"""The type of a PostgreSQL connection, with any row factory."""

from __future__ import annotations

from typing import Any, TypeAlias

import psycopg

Connection: TypeAlias = psycopg.Connection[Any]
