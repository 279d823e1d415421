"""The library's datastore for any libpq connection string, with the ledger's errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final

import psycopg
from eventsourcing.postgres import PostgresDatastore
from psycopg import Connection, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow
from psycopg_pool import PoolTimeout

from domain.shared.errors import DuplicateKey, StoreError, StoreUnavailable, VersionConflict

SCHEMA: Final = "ledger"
LOG_END: Final = "SELECT coalesce(max(notification_id), 0) FROM ledger.events"
WRITE_LOCK: Final = 0x4C65_6467_6572  # the same advisory lock key for every writer of the log
TAKE_WRITE_LOCK: Final = f"SELECT pg_advisory_xact_lock({WRITE_LOCK})"
"""A writer holds it from before it draws positions until its commit, so positions become visible in order."""

LOCK_TIMEOUT_S: Final = 20
IDLE_IN_TRANSACTION_TIMEOUT_S: Final = 10
_KEEPALIVE_OPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "connect_timeout": "5",
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "3",
        "tcp_user_timeout": "20000",
    }
)
"""Options of libpq that detect a dead server in less than half a minute."""


class LedgerDatastore(PostgresDatastore):
    """A pool of connections in autocommit mode.

    A thread inside `exclusive` uses one connection throughout.
    """

    def __init__(self, conninfo: str, *, pool_size: int = 4) -> None:
        self._conninfo = with_keepalives(conninfo)
        options = conninfo_to_dict(self._conninfo)
        super().__init__(
            dbname=str(options.pop("dbname", "")),
            host=str(options.pop("host", "")),
            port=str(options.pop("port", "")),
            user=str(options.pop("user", "")),
            password=str(options.pop("password", "")),
            pool_size=1,
            max_overflow=pool_size - 1,
            idle_in_transaction_session_timeout=IDLE_IN_TRANSACTION_TIMEOUT_S,
            pre_ping=True,
            schema=SCHEMA,
        )
        given = {key: value for key, value in self.pool.kwargs.items() if value != ""}  # type: ignore[union-attr]
        self.pool.kwargs = given | options
        self._held: ContextVar[Connection[DictRow] | None] = ContextVar("held_connection", default=None)

    @property
    def conninfo(self) -> str:
        """The connection string, with keepalives."""
        return self._conninfo

    @property
    def is_exclusive(self) -> bool:
        """Whether the caller is inside `exclusive`."""
        return self._held.get() is not None

    def connect(self) -> Connection[tuple[Any, ...]]:
        """Return an autocommit connection outside the pool, for operations that wait. The caller closes it.

        Raises:
            psycopg.OperationalError: the database does not answer.
        """
        return psycopg.connect(self._conninfo, autocommit=True)

    @contextmanager
    def get_connection(self) -> Iterator[Connection[DictRow]]:
        """Context manager that yields a connection.

        Raises:
            VersionConflict, DuplicateKey: another writer stored a row with the same key.
            StoreUnavailable: the database cannot be reached, or is too busy to answer in time.
        """
        held = self._held.get()
        with as_store_errors():
            if held is not None:
                yield held
                return
            self.pool.open()
            with self.pool.connection() as connection:
                yield connection

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Run everything inside in one transaction that holds the write lock."""
        with self.get_connection() as connection, connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
            connection.execute(TAKE_WRITE_LOCK)
            token = self._held.set(connection)
            try:
                yield
            finally:
                self._held.reset(token)


def with_keepalives(conninfo: str) -> str:
    """Add options that detect a dead server to a connection string. Its own options take precedence."""
    return make_conninfo("", **{**_KEEPALIVE_OPTIONS, **conninfo_to_dict(conninfo)})


@contextmanager
def as_store_errors() -> Iterator[None]:
    """Convert driver errors to the ledger's errors."""
    try:
        yield
    except errors.UniqueViolation as error:
        raise unique_violation(error) from error
    except (
        psycopg.OperationalError,  # a lost server, a lock time-out, a cancelled statement
        psycopg.InterfaceError,
        errors.IdleInTransactionSessionTimeout,
        errors.ReadOnlySqlTransaction,  # a standby after a failover
        PoolTimeout,
    ) as error:
        raise StoreUnavailable(f"the database does not answer: {_first_line(error)}") from error


def unique_violation(error: errors.UniqueViolation) -> StoreError:
    """Return VersionConflict or DuplicateKey, depending on the violated constraint."""
    constraint = error.diag.constraint_name
    if constraint in ("events_pkey", "snapshots_pkey"):
        return VersionConflict(constraint=constraint)
    return DuplicateKey(constraint=constraint)


def _first_line(error: Exception) -> str:
    lines: list[Any] = str(error).strip().splitlines()
    return str(lines[0]) if lines else type(error).__name__
