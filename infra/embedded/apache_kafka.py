"""Apache Kafka on this machine: one broker, or a cluster of three. Needs Java 17 and Maven.

python -m infra.embedded.apache_kafka [--brokers 3] [--root DIR] [--jars DIR]
"""

import argparse
import atexit
import base64
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.embedded.errors import EmbeddedServerError
from infra.embedded.files import FileLock, tail, write_atomically
from infra.embedded.kafka_jars import kafka_jars, require
from infra.embedded.kafka_node import KafkaNode
from infra.embedded.processes import send

DEFAULT_ROOT = Path("var/kafka")
DEFAULT_JARS = Path("var/kafka-jars")


class ApacheKafkaCluster:
    """A cluster of 1 or 3 brokers, numbered from 1.

    With three brokers, topics have three replicas, and two must acknowledge a write. A cluster belongs to the
    process that started it. If that process was killed, the next start stops its brokers and starts new ones
    on the same data.
    """

    def __init__(self, root: Path, *, brokers: int = 1, jars: Path = DEFAULT_JARS) -> None:
        if brokers not in (1, 3):
            raise ValueError("a cluster has 1 or 3 brokers")
        self.root = root.resolve()
        self._jars = jars
        self._nodes = {
            number: KafkaNode(number, self.root / f"broker-{number}") for number in range(1, brokers + 1)
        }
        self._ownership = FileLock(self.root / "owner.lock")
        self._classpath = ""

    @property
    def bootstrap_servers(self) -> str:
        """Addresses of all brokers, including stopped ones: `host:port,host:port`."""
        return ",".join(node.address for node in self._nodes.values())

    def start(self) -> str:
        """Start all brokers, wait until each of them knows the others, and return `bootstrap_servers`.

        Raises:
            MissingToolError: Java or Maven is missing.
            EmbeddedServerError: another process runs a cluster in this directory, or a broker does not start.
                The message then contains the end of its log.
        """
        require("java")
        self._classpath = f"{kafka_jars(self._jars)}/*"
        self._claim()
        try:
            self._prepare()
            for node in self._nodes.values():
                node.launch(self._classpath)
            for node in self._nodes.values():
                node.wait_until_live(peers=set(self._nodes))
        except BaseException:
            self.stop()
            raise
        return self.bootstrap_servers

    def start_broker(self, number: int) -> None:
        """Restart one broker at its old address. Raises EmbeddedServerError as `start` does."""
        self._nodes[number].launch(self._classpath)
        self._nodes[number].wait_until_live(peers={number})

    def kill(self, number: int) -> None:
        """Kill a broker (SIGKILL), like a failing machine."""
        self._nodes[number].end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop all brokers and wait for their end. Do nothing in a process that does not own them."""
        atexit.unregister(self._stop_at_exit)
        if not self.root.exists() or not self._ownership.try_acquire():
            return
        try:
            self._end_all()
        finally:
            self._ownership.release()

    def failed_brokers(self) -> dict[int, str]:
        """Return the brokers that do not run, each with the end of its log."""
        return {node.number: tail(node.log_path) for node in self._nodes.values() if not node.processes()}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _claim(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        if not self._ownership.try_acquire():
            raise EmbeddedServerError(f"another process runs Apache Kafka in {self.root}")
        self._owner_pid = os.getpid()
        atexit.unregister(self._stop_at_exit)
        atexit.register(self._stop_at_exit)

    def _prepare(self) -> None:
        nodes = list(self._nodes.values())
        self._end_all()  # brokers of a killed owner
        taken: set[int] = set()
        for node in nodes:
            node.claim_ports(taken)
        for node in nodes:
            node.configure(nodes)
            node.format(self._classpath, self._cluster_id())

    def _end_all(self) -> None:
        for node in self._nodes.values():
            # Signal all brokers before waiting: an orderly shutdown needs a quorum of running brokers.
            send(node.processes(), signal.SIGTERM)
        for node in self._nodes.values():
            node.end(signal.SIGTERM, signal.SIGKILL)

    def _cluster_id(self) -> str:
        file = self.root / "cluster-id"
        if not file.exists():
            # Kafka's format of a UUID. The leading letter ensures that it does not look like an option.
            write_atomically(file, "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22])
        return file.read_text(encoding="utf-8")

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner_pid:  # a forked child inherits this hook but must not run it
            self.stop()


def main(arguments: list[str] | None = None) -> int:
    """Run a cluster until Ctrl-C or SIGTERM. Return 1 if a broker does not start or exits."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.embedded.apache_kafka", description="Run Apache Kafka."
    )
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument(
        "--root", type=Path, default=DEFAULT_ROOT, help="data directory of the brokers (%(default)s)"
    )
    parser.add_argument(
        "--jars", type=Path, default=DEFAULT_JARS, help="directory of downloaded jars (%(default)s)"
    )
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with ApacheKafkaCluster(options.root, brokers=options.brokers, jars=options.jars) as cluster:
            sys.stdout.write(f"{cluster.bootstrap_servers}\n")
            sys.stdout.flush()
            failed = _wait_for_failure(cluster)
    except EmbeddedServerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    sys.stderr.writelines(f"broker {number} exited:\n{log}\n" for number, log in failed.items())
    return 1


def _wait_for_failure(cluster: ApacheKafkaCluster) -> dict[int, str]:
    while not (failed := cluster.failed_brokers()):
        time.sleep(1.0)
    return failed


if __name__ == "__main__":
    sys.exit(main())
