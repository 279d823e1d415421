"""Real servers for tests: their folder, temporary databases, and the servers of killed runs."""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from infra.embedded.postgres import EmbeddedPostgres

# For tests that do not test durability.
FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}

_PARENT = Path("/tmp")  # noqa: S108 - short on every system, and mkdtemp makes it safe
_PREFIX = "creditledger-test-"
_ABANDONED_AFTER_SECONDS = 3_600
_LEAVING_POLL_S = 0.002
_LEAVING_POLLS = 25


@contextmanager
def servers_folder() -> Iterator[Path]:
    """A folder for server directories: its path is short enough for sockets, and `nobody` can enter it."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_PARENT))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def new_database(server: EmbeddedPostgres, *, template: str = "template1") -> Iterator[str]:
    """URL of a copy of the database `template`. It is dropped at the end, even with open connections."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        admin.execute(copy.format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield server.url(name)
        finally:
            _wait_until_left(admin, name)
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _wait_until_left(admin: psycopg.Connection[Any], name: str) -> None:
    """Give just closed sessions time to end: the server checks for them every 100 ms."""
    for _ in range(_LEAVING_POLLS):
        if not admin.execute("SELECT FROM pg_stat_activity WHERE datname = %s LIMIT 1", [name]).fetchall():
            return
        time.sleep(_LEAVING_POLL_S)


def stop_abandoned_servers() -> None:
    """Stop servers whose test run was killed. Servers of a live run are not stopped."""
    for folder in _PARENT.glob(f"{_PREFIX}*"):
        about = folder.stat()
        if about.st_uid == os.getuid() and time.time() - about.st_mtime > _ABANDONED_AFTER_SECONDS:
            _stop_abandoned(folder)


def _stop_abandoned(folder: Path) -> None:
    from infra.embedded.broker import EmbeddedBroker

    for root in [lock.parent for lock in folder.glob("*/owner.lock")]:
        for server in (EmbeddedPostgres(root), EmbeddedBroker(root)):
            server.stop()
            if server.is_running():
                return
    shutil.rmtree(folder, ignore_errors=True)
