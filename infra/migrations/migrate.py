"""Migrates a database to the schema of this version.

Migrations are the files `infra/migrations/NNNN_name.sql`. They are applied in order, each in one transaction,
and recorded in `public.ledger_migrations`. Any number of processes may start at the same time: an advisory
lock lets only one of them migrate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.resources import files
from typing import Final

import msgspec
import psycopg
from psycopg import errors, sql

from domain.shared.errors import StoreError
from projections.connection import Connection
from projections.query.row_security import READER_ROLE

SERVICE_ROLE: Final = "creditledger_service"
"""Database role of every part of the service. It may switch to `READER_ROLE`, which sees fewer rows."""

_LOCK: Final = 0x4C454447_4D494752  # "LEDGMIGR"
_LOCK_TIMEOUT_S: Final = 300
_TABLE_LOCK_TIMEOUT_S: Final = 10
_ROLE_ATTEMPTS: Final = 20

_MIGRATIONS_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS public.ledger_migrations (
        version integer NOT NULL,
        name text NOT NULL,
        digest text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT ledger_migrations_pkey PRIMARY KEY (version)
    )
"""

_IS_MEMBER: Final = """
    SELECT 1 FROM pg_auth_members
    WHERE member = (SELECT oid FROM pg_roles WHERE rolname = %s)
        AND roleid = (SELECT oid FROM pg_roles WHERE rolname = %s)
"""


class MigrationChanged(StoreError):
    """The text of an applied migration has changed."""


class Migration(msgspec.Struct, frozen=True):
    """One step of the schema. `digest` is the SHA-256 of its text in hex."""

    version: int
    name: str
    text: str

    @property
    def digest(self) -> str:
        return sha256(self.text.encode()).hexdigest()


def migrate(conninfo: str, *, service_login: tuple[str, str] | None = None) -> list[str]:
    """Apply the pending migrations and return their names.

    `conninfo` must belong to a superuser, or to the database's owner with CREATEROLE. The cluster roles
    `creditledger_service` and `creditledger_reader` are created if they are missing. `service_login`
    (name, password) becomes a login whose default role is `creditledger_service`.

    Raises:
        MigrationChanged: the text of an applied migration has changed.
        psycopg.errors.LockNotAvailable: another process held a lock for too long.
    """
    with psycopg.connect(conninfo, autocommit=True) as connection, _migration_lock(connection):
        _ensure_roles(connection)
        if service_login is not None:
            _ensure_login(connection, *service_login)
        connection.execute(_MIGRATIONS_TABLE)
        return [_apply(connection, migration) for migration in _pending(connection)]


def migrations() -> list[Migration]:
    """Return every migration of this version, in order."""
    folder = files("infra") / "migrations"
    found = []
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name):  # schema.sql is not a migration
            version, name = match.groups()
            found.append(Migration(int(version), name, file.read_text(encoding="utf-8")))
    return found


@contextmanager
def _migration_lock(connection: Connection) -> Iterator[None]:
    """Hold the migration lock of the database. The server releases it when the connection ends."""
    connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT_S}s'")
    connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    connection.execute(f"SET lock_timeout = '{_TABLE_LOCK_TIMEOUT_S}s'")
    yield


def _pending(connection: Connection) -> list[Migration]:
    recorded: dict[int, str] = dict(
        connection.execute("SELECT version, digest FROM public.ledger_migrations").fetchall()
    )
    pending = []
    for migration in migrations():
        digest = recorded.get(migration.version)
        if digest is None:
            pending.append(migration)
        elif digest != migration.digest:
            raise MigrationChanged(
                f"migration {migration.version} ({migration.name}) was applied with a different text",
                version=migration.version,
            )
    return pending


def _apply(connection: Connection, migration: Migration) -> str:
    with connection.transaction():
        # Without parameters, one call may contain several statements.
        connection.execute(migration.text.encode())
        connection.execute(
            "INSERT INTO public.ledger_migrations (version, name, digest) VALUES (%s, %s, %s)",
            [migration.version, migration.name, migration.digest],
        )
    return migration.name


# ------------------------------------------------------------------------------------------------ roles
# Roles belong to the cluster. Migrations of its other databases may create the same roles concurrently.


def _ensure_roles(connection: Connection) -> None:
    service, reader = sql.Identifier(SERVICE_ROLE), sql.Identifier(READER_ROLE)

    def create() -> None:
        for role in (SERVICE_ROLE, READER_ROLE):
            if not _role_exists(connection, role):
                connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
        if connection.execute(_IS_MEMBER, [SERVICE_ROLE, READER_ROLE]).fetchone() is None:
            connection.execute(sql.SQL("GRANT {} TO {}").format(reader, service))

    _retry_concurrent_change(create)


def _ensure_login(connection: Connection, name: str, password: str) -> None:
    # Send only the password's verifier, because the server may log statements.
    verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    login, service = sql.Identifier(name), sql.Identifier(SERVICE_ROLE)

    def create() -> None:
        statement = (
            "ALTER ROLE {} LOGIN PASSWORD {}"
            if _role_exists(connection, name)
            else ("CREATE ROLE {} LOGIN PASSWORD {}")
        )
        connection.execute(sql.SQL(statement).format(login, sql.Literal(verifier)))
        connection.execute(sql.SQL("GRANT {} TO {}").format(service, login))
        connection.execute(sql.SQL("ALTER ROLE {} SET role = {}").format(login, sql.Literal(SERVICE_ROLE)))

    _retry_concurrent_change(create)


def _role_exists(connection: Connection, name: str) -> bool:
    return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone() is not None


def _retry_concurrent_change(change: Callable[[], None]) -> None:
    """Retry a change of roles if another process of the cluster made it first."""
    for _ in range(_ROLE_ATTEMPTS):
        try:
            return change()
        except (errors.DuplicateObject, errors.UniqueViolation, errors.InternalError_):
            # InternalError means "tuple concurrently updated".
            continue
    return change()
