"""The service under test: `creditledger up` as a user runs it, with its parts as child processes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from infra.embedded.issuer import EmbeddedIssuer

READY_WITHIN_S: Final = 120.0
STOPPED_WITHIN_S: Final = 180.0
_TOKEN_LIVES_S: Final = 60.0


class Service:
    """A running `up` with the demo's organisations and traffic."""

    def __init__(self, process: subprocess.Popen[str], data_dir: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.data_dir = data_dir
        self.process = process
        self._issuer = EmbeddedIssuer(data_dir)
        self._tokens: dict[str, tuple[float, str]] = {}

    @property
    def database_url(self) -> str:
        """URL of the service's database, with the service's role."""
        text = (self.data_dir / "environment").read_text(encoding="utf-8")
        return dict(word.split("=", 1) for word in shlex.split(text))["DATABASE_URL"]

    def bearer(self, subject: str, **claims: Any) -> dict[str, str]:
        """Return the Authorization header of a user with these roles and organisations."""
        key = subject + json.dumps(claims)
        made_at, token = self._tokens.get(key, (-_TOKEN_LIVES_S, ""))
        if time.monotonic() - made_at > _TOKEN_LIVES_S:
            token = self._issuer.token(subject, **claims)
            self._tokens[key] = (time.monotonic(), token)
        return {"Authorization": f"Bearer {token}"}

    def parts(self) -> dict[str, psutil.Process]:
        """Return the running parts by their commands."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                words = child.cmdline()
            except psutil.Error:
                continue
            if words[1:3] == ["-m", "infra.cli"] and len(words) > 3:
                found[words[3]] = child
        return found

    def servers_rss(self) -> int:
        """Return the resident bytes of the embedded servers. Shared memory counts once per process."""
        ours = {part.pid for part in self.parts().values()}
        total = 0
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                total += 0 if child.pid in ours else child.memory_info().rss
            except psutil.Error:
                continue
        return total

    def kill(self, name: str) -> bool:
        """Kill a part; return whether it was running."""
        part = self.parts().get(name)
        if part is None:
            return False
        part.kill()
        return True

    def report(self) -> dict[str, Any] | None:
        """Wait until the service stops by itself, and return its final report, or None if there is none."""
        output, _ = self.process.communicate(timeout=STOPPED_WITHIN_S)
        lines = output.splitlines()
        return dict(json.loads(lines[-1])) if lines else None


@contextmanager
def running(data_dir: Path, log: Path, *, for_s: float, rate: float) -> Iterator[Service]:
    """Run `creditledger up --demo` until it stops by itself after some time."""
    port = _free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as lines,
        subprocess.Popen(
            [*_CLI, "up", "--demo", "--rate", str(rate), "--for", str(for_s)],
            env=_environment({"DATA_DIR": str(data_dir), "API_PORT": str(port)}),
            stdout=subprocess.PIPE,
            stderr=lines,
            text=True,
        ) as process,
    ):
        service = Service(process, data_dir, port)
        try:
            _wait_until_ready(service)
            yield service
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(STOPPED_WITHIN_S)


def audit(data_dir: Path) -> list[str]:
    """Run `creditledger audit check` while the service runs, and return its findings."""
    done = subprocess.run(
        [*_CLI, "audit", "check"],
        env=_environment({"DATA_DIR": str(data_dir)}),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    findings = done.stdout.splitlines()
    return findings if done.returncode == 0 or findings else [done.stderr.strip()[-500:]]


_CLI: Final = (sys.executable, "-m", "infra.cli")


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if not name.endswith(("_URL", "_SERVERS"))}
    return {**given, "WEBHOOK_ALLOW_PRIVATE": "true", **ours}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(service: Service) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and service.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{service.url}/readyz", timeout=2):  # noqa: S310 - loopback
                pass
        except OSError:
            time.sleep(0.2)
            continue
        if "simulate-pipeline" in service.parts():
            return
        time.sleep(0.2)
    raise RuntimeError("the service did not get ready")
