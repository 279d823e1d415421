"""The type of a PostgreSQL connection, whatever rows it returns."""

from __future__ import annotations

from typing import Any, TypeAlias

import psycopg

Connection: TypeAlias = psycopg.Connection[Any]
