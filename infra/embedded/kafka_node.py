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
    """Broker and controller in one process (KRaft) on 127.0.0.1. `home` is its folder."""

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
        """Use the ports of the last start if they are still free. Add the ports to `taken`."""
        self.home.mkdir(exist_ok=True)
        for name in ("port", "controller-port"):
            port = read_number(self.home / name)
            while port is None or port in taken or not is_free(port):
                port = pick_free_port()
            taken.add(port)
            write_atomically(self.home / name, str(port))

    def configure(self, nodes: Sequence["KafkaNode"]) -> None:
        """Write the configuration of this node in a cluster of `nodes`. All nodes must have ports."""
        replicas = len(nodes)
        in_sync = 1 if replicas == 1 else 2
        settings = {
            "process.roles": "broker,controller",
            "node.id": self.number,
            "controller.quorum.voters": ",".join(
                f"{node.number}@{node.controller_address}" for node in nodes
            ),
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{self.controller_address}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": "data",  # relative path, so that no escaping is needed
            "auto.create.topics.enable": "false",
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "transaction.state.log.num.partitions": 4,
            "group.initial.rebalance.delay.ms": 0,
            # A killed broker can rejoin only after its session has expired. The default is 9 s.
            "broker.heartbeat.interval.ms": 1_000,
            "broker.session.timeout.ms": 5_000,
        }
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.home / "server.properties").write_text(text, encoding="utf-8")

    def format(self, classpath: str, cluster_id: str) -> None:
        """Format the storage once. Raises EmbeddedServerError if Kafka refuses."""
        if (self.home / "data" / "meta.properties").exists():
            return
        command = _java(classpath, "kafka.tools.StorageTool", "format", "--config", "server.properties")
        command += ["--cluster-id", cluster_id, "--ignore-formatted"]
        done = subprocess.run(
            command, check=False, cwd=self.home, capture_output=True, text=True, timeout=_START_SECONDS
        )
        if done.returncode != 0:
            output = (done.stdout + done.stderr)[-2000:]
            raise EmbeddedServerError(f"the storage in {self.home} could not be formatted:\n{output}")

    def launch(self, classpath: str) -> None:
        """Start the process if it does not run."""
        if self.processes():
            return
        command = _java(classpath, "kafka.Kafka", "server.properties")
        with appended_log(self.log_path) as log:
            self._child = Account().spawn(command, cwd=self.home, log=log)

    def wait_until_live(self, peers: set[int]) -> None:
        """Wait until this node serves clients and lists `peers` as live brokers.

        Raises:
            EmbeddedServerError: the node exits or does not answer. The message has its last lines of output.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not live_brokers(self.address) >= peers:
            if not self.processes():
                raise EmbeddedServerError(
                    f"broker {self.number} {self._describe_exit()}:\n{tail(self.log_path)}"
                )
            if time.monotonic() > deadline:
                waited = f"{_START_SECONDS:.0f} s"
                raise EmbeddedServerError(
                    f"broker {self.number} does not answer after {waited}:\n{tail(self.log_path)}"
                )
            time.sleep(0.1)

    def _describe_exit(self) -> str:
        code = None if self._child is None else self._child.poll()
        return "exited" if code is None else f"exited with code {code}"

    def processes(self) -> list[psutil.Process]:
        """Return the live processes of this node, including those that another process started."""
        found = {process.pid: process for process in processes_in(self.home, "java")}
        # Include our child even before exec has given it the name of its program.
        if self._child is not None and self._child.poll() is None:
            child = process_with(self._child.pid)
            if child is not None:
                found[child.pid] = child
        return list(found.values())

    def end(self, *signals: signal.Signals) -> None:
        """Send signals one after another until all processes have exited.

        Raises EmbeddedServerError if one survives.
        """
        remaining = self.processes()
        for number in signals:
            send(remaining, number)
            remaining = wait_for_end(remaining, timeout_seconds=_STOP_SECONDS)
        if remaining:
            raise EmbeddedServerError(f"broker {self.number} does not stop: {remaining}")
        if self._child is not None:
            self._child.wait(timeout=10)
            self._child = None


def _java(classpath: str, *arguments: str) -> list[str]:
    return [require("java"), *_JAVA_OPTIONS, "-cp", classpath, *arguments]
