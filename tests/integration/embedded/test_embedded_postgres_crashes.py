"""The embedded PostgreSQL when it, or the process that launched it, is killed."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from infra.embedded.postgres import EmbeddedPostgres
from infra.embedded.processes import processes_in

Launch = Callable[[str, Path], "subprocess.Popen[str]"]
PATIENCE_SECONDS = 30


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the wait timed out"
        time.sleep(0.002)


def kill(server: EmbeddedPostgres) -> None:
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.is_running())


def address_of(launcher: "subprocess.Popen[str]") -> str:
    assert launcher.stdout is not None
    return launcher.stdout.readline().strip()


def end(launcher: "subprocess.Popen[str]") -> None:
    launcher.kill()
    launcher.wait(timeout=PATIENCE_SECONDS)


def write_until_it_breaks(address: str, acknowledged: list[int]) -> None:
    try:
        with psycopg.connect(address, autocommit=True) as connection:
            for number in range(1_000_000):
                connection.execute("INSERT INTO written VALUES (%s)", [number])
                acknowledged.append(number)
    except psycopg.OperationalError:
        return


def test_no_acknowledged_row_is_lost_when_the_postmaster_is_killed(server: EmbeddedPostgres) -> None:
    address, acknowledged = server.address, list[int]()
    with psycopg.connect(address) as connection:
        connection.execute("CREATE TABLE written (number int)")
    writer = threading.Thread(target=write_until_it_breaks, args=(address, acknowledged))
    writer.start()
    wait_until(lambda: len(acknowledged) > 100)
    processes = list(processes_in(server.root / "data", "postgres"))
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()  # all at the same time, backends too: no process can clean up
    psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)  # one that is still dying may answer
    writer.join(timeout=PATIENCE_SECONDS)

    assert server.ensure_running() == address
    with psycopg.connect(address) as connection:
        kept = {number for (number,) in connection.execute("SELECT number FROM written")}
    assert kept >= set(acknowledged)
    assert len(kept) <= len(acknowledged) + 1  # the one in flight may have been written


def test_a_busy_backend_does_not_prevent_the_next_start(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.address, autocommit=True) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        query = threading.Thread(target=_run_for_ever, args=(connection,))
        query.start()
        wait_until(lambda: backend.cpu_times().user > 0.2)
        kill(server)
        assert backend.is_running()

        psycopg.connect(server.start()).close()
        query.join(timeout=PATIENCE_SECONDS)
    assert backend not in processes_in(server.root / "data", "postgres")


def _run_for_ever(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.OperationalError):
        # A loop in one expression: no row and no wait, so the backend does not check whether the postmaster
        # is dead.
        connection.execute("DO $$ DECLARE n bigint := 0; BEGIN LOOP n := n + 1; END LOOP; END $$")


def test_the_server_of_a_killed_launcher_is_adopted_and_owned(root: Path, launch: Launch) -> None:
    launcher = launch("postgres", root)
    address = address_of(launcher)
    end(launcher)

    with EmbeddedPostgres(root) as heir:
        assert heir.address == address
        assert heir.pid in {process.pid for process in processes_in(root / "data", "postgres")}
        psycopg.connect(address).close()
    assert processes_in(root / "data", "postgres") == []


def test_stop_ends_an_orphan_without_starting_it(root: Path, launch: Launch) -> None:
    launcher = launch("postgres", root)
    address_of(launcher)
    end(launcher)

    EmbeddedPostgres(root).stop()
    assert processes_in(root / "data", "postgres") == []


def test_a_second_user_does_not_stop_the_owners_server(root: Path, launch: Launch) -> None:
    launcher = launch("postgres", root)
    address = address_of(launcher)

    with EmbeddedPostgres(root) as guest:
        assert guest.address == address
    psycopg.connect(address).close()

    launcher.communicate(timeout=PATIENCE_SECONDS)  # its input closes, so it exits gracefully
    assert processes_in(root / "data", "postgres") == []


def test_a_pid_file_naming_a_stranger_is_stale(server: EmbeddedPostgres) -> None:
    pid_file = server.root / "data" / "postmaster.pid"
    text = pid_file.read_text(encoding="utf-8")
    kill(server)
    stranger = os.getpid()  # alive, so PostgreSQL itself would refuse to start
    pid_file.write_text(text.replace(text.split("\n")[0], str(stranger), 1), encoding="utf-8")

    assert not server.is_running()
    psycopg.connect(server.start()).close()
    assert server.pid != stranger


def test_a_zombie_does_not_run(root: Path, template: Path) -> None:
    server = EmbeddedPostgres(root, template=template)
    server.start()
    other = EmbeddedPostgres(root)
    os.kill(server.pid, signal.SIGKILL)
    # The first object is its parent and does not wait for it, so the process stays a zombie.
    wait_until(lambda: not other.is_running())

    psycopg.connect(other.start()).close()
    server.stop()
    assert not other.is_running()


def test_an_interrupted_initdb_is_repeated(root: Path, launch: Launch) -> None:
    launcher = launch("postgres", root)
    wait_until(lambda: list(root.glob("initdb-*/data/*")))
    end(launcher)
    assert not (root / "data").exists()

    with EmbeddedPostgres(root) as server:
        psycopg.connect(server.address).close()
    # The initdb that lost its launcher may still write to its own folder, but never to the data folder.
    assert (root / "data" / "PG_VERSION").exists()


def test_two_starters_at_once_share_one_server(root: Path, launch: Launch) -> None:
    launchers = [launch("postgres", root) for _ in range(2)]
    addresses = {address_of(launcher) for launcher in launchers}

    assert len(addresses) == 1
    psycopg.connect(addresses.pop()).close()
    pid = EmbeddedPostgres(root).pid
    postmasters = [p for p in processes_in(root / "data", "postgres") if p.ppid() != pid]
    assert [postmaster.pid for postmaster in postmasters] == [pid]
    for launcher in launchers:
        launcher.communicate(timeout=PATIENCE_SECONDS)
    assert processes_in(root / "data", "postgres") == []
