import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.embedded.postgres import EmbeddedPostgres
from tests.servers import FAST, servers_folder

LAUNCHER = Path(__file__).with_name("launcher.py")
Launch = Callable[[str, Path], "subprocess.Popen[str]"]


@pytest.fixture
def root() -> Iterator[Path]:
    """An empty directory for a server. A server that still runs there is stopped afterwards."""
    with servers_folder() as folder:
        yield folder / "server"


@pytest.fixture(scope="session")
def template(servers_root: Path) -> Path:
    """A stopped PostgreSQL to copy."""
    with EmbeddedPostgres(servers_root / "template", settings=FAST) as server:
        return server.root


@pytest.fixture
def server(root: Path, template: Path) -> Iterator[EmbeddedPostgres]:
    """A running PostgreSQL with fsync, for crash tests."""
    with EmbeddedPostgres(root, template=template) as server:
        yield server


@pytest.fixture
def launch() -> Iterator[Launch]:
    """A function that starts a server from a separate process, which can be killed."""
    launchers = []

    def start(kind: str, root: Path) -> "subprocess.Popen[str]":
        launcher = subprocess.Popen(
            [sys.executable, LAUNCHER, kind, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        launchers.append(launcher)
        return launcher

    yield start
    for launcher in launchers:
        launcher.kill()
        launcher.communicate(timeout=10)
