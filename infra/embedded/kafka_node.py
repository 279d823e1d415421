"""One node of an Apache Kafka cluster: its folder, ports, configuration and process."""

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from infra.embedded.errors import EmbeddedServerError
from infra.embedded.files import appended_log, is_free, pick_free_port, read_number, tail, write_atomically
from infra.embedded.kafka_jars import require
from infra.embedded.kafka_probe import live_brokers
from infra.embedded.processes import Account, process_with, processes_in, send, wait_for_end

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_JAVA_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-Dlog4j2.level=WARN")


class KafkaNode:
    """Broker and controller in one process (KRaft), at home in `home`, on 127.0.0.1."""

    def __init__(self, number: int, home: Path) -> None:
        self.number = number
        self.home = home
        self.log_path = home / "server.log"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{read_number(self.home / 'port')}"

    @property
    def controller_address(self) -> str:
        return f"127.0.0.1:{read_number(self.home / 'controller-port')}"

    def claim_ports(self, taken: set[int]) -> None:
        """Keep the ports of the last start where they are still free; adds them to `taken`."""
        self.home.mkdir(exist_ok=True)
        for name in ("port", "controller-port"):
            port = read_number(self.home / name)
            while port is None or port in taken or not is_free(port):
                port = pick_free_port()
            taken.add(port)
            write_atomically(self.home / name, str(port))

    def configure(self, nodes: Sequence["KafkaNode"]) -> None:
        """Write the configuration of this node within a cluster of `nodes`, which all have their ports."""
        copies = len(nodes)
        in_sync = 1 if copies == 1 else 2
        settings = {
            "process.roles": "broker,controller",
            "node.id": self.number,
            "controller.quorum.voters": ",".join(
                f"{node.number}@{node.controller_address}" for node in nodes
            ),
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{self.controller_address}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": "data",  # below the working directory, so that no path needs escaping
            "auto.create.topics.enable": "false",
            "default.replication.factor": copies,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_sync,
            "transaction.state.log.num.partitions": 4,
            "group.initial.rebalance.delay.ms": 0,
            # A killed broker may come back only after its session has ended: 9 s by default.
            "broker.heartbeat.interval.ms": 1_000,
            "broker.session.timeout.ms": 5_000,
        }
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.home / "server.properties").write_text(text, encoding="utf-8")

    def format(self, classpath: str, cluster_id: str) -> None:
        """Prepare the storage once. Raises EmbeddedServerError when Kafka refuses."""
        if (self.home / "data" / "meta.properties").exists():
            return
        command = _java(classpath, "kafka.tools.StorageTool", "format", "--config", "server.properties")
        command += ["--cluster-id", cluster_id, "--ignore-formatted"]
        done = subprocess.run(
            command, check=False, cwd=self.home, capture_output=True, text=True, timeout=_START_SECONDS
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr)[-2000:]
            raise EmbeddedServerError(f"the storage in {self.home} could not be formatted:\n{said}")

    def launch(self, classpath: str) -> None:
        """Spawn the process unless it runs."""
        if self.processes():
            return
        command = _java(classpath, "kafka.Kafka", "server.properties")
        with appended_log(self.log_path) as log:
            self._child = Account().spawn(command, cwd=self.home, log=log)

    def wait_until_live(self, peers: set[int]) -> None:
        """Wait until this node serves clients and counts `peers` among the living.

        Raises EmbeddedServerError, with the end of the log, when it ends or stays silent.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not live_brokers(self.address) >= peers:
            if not self.processes():
                raise EmbeddedServerError(f"broker {self.number} {self._ending()}:\n{tail(self.log_path)}")
            if time.monotonic() > deadline:
                waited = f"{_START_SECONDS:.0f} s"
                raise EmbeddedServerError(
                    f"broker {self.number} is silent after {waited}:\n{tail(self.log_path)}"
                )
            time.sleep(0.1)

    def _ending(self) -> str:
        code = None if self._child is None else self._child.poll()
        return "ended" if code is None else f"ended with exit code {code}"

    def processes(self) -> list[psutil.Process]:
        """The live processes of this node, whoever launched them."""
        found = {process.pid: process for process in processes_in(self.home, "java")}
        # Our own child counts before it bears its program's name: exec gives it that last.
        if self._child is not None and self._child.poll() is None:
            child = process_with(self._child.pid)
            if child is not None:
                found[child.pid] = child
        return list(found.values())

    def end(self, *signals: signal.Signals) -> None:
        """Send signals, one after another, until nothing is left, or raise EmbeddedServerError."""
        remaining = self.processes()
        for number in signals:
            send(remaining, number)
            remaining = wait_for_end(remaining, timeout_seconds=_STOP_SECONDS)
        if remaining:
            raise EmbeddedServerError(f"broker {self.number} does not end: {remaining}")
        if self._child is not None:
            self._child.wait(timeout=10)
            self._child = None


def _java(classpath: str, *arguments: str) -> list[str]:
    return [require("java"), *_JAVA_OPTIONS, "-cp", classpath, *arguments]
