"""The commands in the documents work, in reading order."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.documents import ROOT, blocks
from tests.e2e.test_up import READY_WITHIN_S, environment, get, stop, up, wait_until  # noqa: F401

WALKED: Final = (
    *("README.md", "docs/quick-start.md", "docs/usage.md", "docs/http-api.md", "docs/holds.md"),
    *("docs/payments.md", "docs/invoices.md", "docs/webhooks.md"),
)
NOT_RUN: Final = re.compile(r"make (up|test|help)")
NEEDS_A_PAID_PAYMENT: Final = "INVOICE_ID"
HTTP_ERROR: Final = 22
"""What curl exits with for 4xx and 5xx."""
_END: Final = "end-of-command"

pytestmark = [
    pytest.mark.slow(seconds=90),
    pytest.mark.skipif(
        not (shutil.which("bash") and shutil.which("curl")), reason="bash and curl are needed"
    ),
]


class Shell:
    """One bash process, like a reader's terminal: variables and functions are kept between commands."""

    def __init__(self, environment: dict[str, str]) -> None:  # noqa: F811
        self._process = subprocess.Popen(
            ["bash"],
            cwd=ROOT,
            env={**environment, "LOG_LEVEL": "ERROR"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.run('curl() { command curl --fail-with-body --max-time 60 "$@"; }')

    def run(self, command: str) -> tuple[int, str]:
        """Return the exit code and the output of a command."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{command}\nended=$?; echo; echo {_END} $ended\n")
        process.stdin.flush()
        printed: list[str] = []
        for line in process.stdout:
            if line.startswith(_END):
                return int(line.split()[1]), "".join(printed).strip()
            printed.append(line)
        pytest.fail(f"the shell ended: {command}")

    def close(self) -> None:
        """End the shell."""
        self._process.communicate("exit\n", timeout=10)


def commands_of(block: str) -> Iterator[tuple[str, bool]]:
    """Return the commands of a block, and whether its comment announces a refusal with a 4xx."""
    lines = iter(block.splitlines())
    refused = False
    for line in lines:
        if line.startswith("#"):
            refused = re.match(r"# 4\d\d:", line) is not None
            continue
        if not line.strip():
            refused = False
            continue
        command = line
        while command.endswith("\\"):
            command = f"{command}\n{next(lines)}"
        if heredoc := re.search(r"<<'(\w+)'", command):
            for rest in lines:
                command += f"\n{rest}"
                if rest == heredoc[1]:
                    break
        yield command, refused


def ids_in(printed: str) -> dict[str, str]:
    """Return the ids in a response, by their placeholders in the documents."""
    try:
        answer: Any = json.loads(printed)
    except ValueError:
        return {}
    if not isinstance(answer, dict):
        return {}
    return {
        name.upper(): value
        for name, value in answer.items()
        if name.endswith("_id") and isinstance(value, str)
    } | ({"clk_...": answer["key"]} if "key" in answer else {})


@pytest.fixture
def running(environment: dict[str, str]) -> Iterator[dict[str, str]]:  # noqa: F811
    """The settings of a running demo, with its history projected."""
    with up(environment, "--demo") as process:
        organisation = "/v1/organisations/stride-photos"
        wait_until(lambda: get(environment, f"{organisation}/usage-summary"), READY_WITHIN_S)
        yield environment
        stop(process, signal.SIGINT)


def test_commands_of_the_documents_work(running: dict[str, str], subtests: pytest.Subtests) -> None:
    places = {
        "http://127.0.0.1:8000": f"http://127.0.0.1:{running['API_PORT']}",
        "exec .venv/bin/python": f"exec {sys.executable}",
        ".venv/bin/creditledger": f"{sys.executable} -m infra.cli",
        "var/environment": f"{running['DATA_DIR']}/environment",
        "-o invoice.pdf": "-o /dev/null",
    }
    for name in WALKED:
        shell = Shell(running)
        ids: dict[str, str] = {}
        for block in blocks(ROOT / name, "sh"):
            for command, refused in commands_of(block):
                if NOT_RUN.match(command) or NEEDS_A_PAID_PAYMENT in command:
                    continue
                typed = command
                for shown, real in {**places, **ids}.items():
                    typed = typed.replace(shown, real)
                with subtests.test(f"{name}: {command[:60]}"):
                    code, printed = shell.run(typed)
                    assert code == (HTTP_ERROR if refused else 0), printed
                    ids |= ids_in(printed)
        shell.close()
