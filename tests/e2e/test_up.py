"""`creditledger up` as a user runs it: one command, real servers, and a correct ledger."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.embedded.files import pick_free_port
from infra.embedded.issuer import EmbeddedIssuer

READY_WITHIN_S = 60
STOPPED_WITHIN_S = 60
MONTHS = 4


@pytest.fixture
def environment(servers_root: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings of an `up` for one test."""
    port = pick_free_port()
    given = {name: value for name, value in os.environ.items() if not name.endswith(("_URL", "_SERVERS"))}
    return {**given, "DATA_DIR": str(servers_root / request.node.name[:24]), "API_PORT": str(port)}


@contextmanager
def up(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `creditledger up`, and stop it at the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "infra.cli", "up", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                stop(process, signal.SIGTERM)


def stop(process: subprocess.Popen[str], number: signal.Signals) -> int:
    """Signal the process and return its exit code."""
    process.send_signal(number)
    try:
        return process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def get(environment: dict[str, str], path: str) -> Any:
    """Return the JSON of an API resource, read as an auditor."""
    request = urllib.request.Request(f"http://127.0.0.1:{environment['API_PORT']}{path}")
    if path.startswith("/v1"):
        token = EmbeddedIssuer(Path(environment["DATA_DIR"])).token("a-1", roles=["auditor"])
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
        return json.load(answer)


def wait_until(condition: Any, within_s: float) -> Any:
    """Return the first true value of a condition; fail after the time-out."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            value = condition()
        except urllib.error.HTTPError as error:
            error.close()
            value = None
        except OSError:
            value = None
        if value:
            return value
        time.sleep(0.1)
    pytest.fail("the wait timed out")


def processes_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the parts and the embedded servers, without their own child processes."""
    return psutil.Process(process.pid).children()


def test_a_run_reports_a_ledger_equal_to_the_published_messages(
    environment: dict[str, str],
) -> None:
    with up(environment, "--demo", "--rate", "20", "--for", "5") as process:
        output, _ = process.communicate(timeout=120)
    report = json.loads(output.splitlines()[-1])

    assert report["differences"] == []
    assert report["equal"] is True
    assert process.returncode == 0
    assert report["messages_published"] > 500
    assert report["charges_recorded"] + report["repeats_dropped"] == report["messages_published"]
    assert set(report["balances"]) == {"stride-photos", "lens-and-lace", "campus-clicks"}
    assert report["positions"]["log_end"] == report["positions"]["projections"]
    assert report["positions"]["log_end"] == report["positions"]["published"] > 0
    assert sum(report["positions"]["usage"].values()) == report["messages_published"]


def test_a_killed_pipeline_leaves_no_account_to_compare(environment: dict[str, str]) -> None:
    with up(environment, "--demo", "--for", "4") as process:
        pipeline = wait_until(lambda: part_of(process, "simulate-pipeline"), READY_WITHIN_S)
        pipeline.kill()
        output, _ = process.communicate(timeout=120)
    report = json.loads(output.splitlines()[-1])
    assert report["equal"] is False
    assert "totals" in report["differences"][0]["publisher"]
    assert process.returncode == 1


def test_runs_pause_without_credits_and_resume_after_a_grant(environment: dict[str, str]) -> None:
    campus = "/v1/organisations/campus-clicks"
    with up(environment, "--demo", "--rate", "30") as process:
        # If all credits are held, processing pauses before any usage: wait for the usage.
        paused = wait_until(lambda: used_up(get(environment, f"{campus}/balance")), READY_WITHIN_S)
        holds = get(environment, f"{campus}/holds")["holds"]
        assert sum(hold["used"] for hold in holds) > 0

        grant(environment, campus, 70 - paused["balance"])
        wait_until(lambda: get(environment, f"{campus}/holds")["holds"][0] not in holds, READY_WITHIN_S)
        again = wait_until(lambda: used_up(get(environment, f"{campus}/balance")), READY_WITHIN_S)
        assert again["balance"] == 0, "no run used more than it held"
        assert stop(process, signal.SIGINT) == 0


def used_up(balance: Any) -> Any:
    """Return a balance without available and held credits."""
    return balance if balance["processing"] == "paused" and balance["on_hold"] == 0 else None


def grant(environment: dict[str, str], path: str, credits_count: int) -> None:
    """Grant credits as staff."""
    token = EmbeddedIssuer(Path(environment["DATA_DIR"])).token("s-1", roles=["staff"])
    request = urllib.request.Request(
        f"http://127.0.0.1:{environment['API_PORT']}{path}/grants",
        json.dumps({"credits": credits_count, "kind": "admin", "reason": "go on"}).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
        assert answer.status == 201


def part_of(process: subprocess.Popen[str], command: str) -> psutil.Process | None:
    return next((part for part in processes_of(process) if command in command_line_of(part)), None)


def command_line_of(part: psutil.Process) -> list[str]:
    """Return a process's command line; empty if it has ended."""
    try:
        return list(part.cmdline())
    except psutil.Error:
        return []


def test_data_survives_restarts_and_killed_parts(
    environment: dict[str, str],
) -> None:
    summary = "/v1/organisations/stride-photos/usage-summary"
    balance = "/v1/organisations/stride-photos/balance"
    with up(environment, "--demo", "--rate", "20") as process:
        wait_until(lambda: get(environment, "/readyz"), READY_WITHIN_S)
        full = wait_until(lambda: four_full_months(get(environment, summary)), READY_WITHIN_S)
        assert [month["current"] for month in full] == [True, False, False, False]

        for part in processes_of(process):
            if any(name in command_line_of(part) for name in ("consume", "project", "publish", "api")):
                part.kill()
        before = wait_until(lambda: get(environment, balance), READY_WITHIN_S)["available"]
        wait_until(lambda: get(environment, balance)["available"] < before, READY_WITHIN_S)

        children = processes_of(process)
        assert stop(process, signal.SIGINT) == 0
    assert psutil.wait_procs(children, timeout=5)[1] == []

    with up(environment) as again:
        wait_until(lambda: get(environment, "/readyz"), READY_WITHIN_S)
        after = get(environment, summary)["months"]
        for month_after, month_before in zip(after, full, strict=True):
            assert month_after["credits"] >= month_before["credits"]
        assert stop(again, signal.SIGTERM) == 0


def test_parts_stop_when_their_parent_is_killed_and_the_next_start_takes_over(
    environment: dict[str, str],
) -> None:
    with up(environment) as process:
        wait_until(lambda: get(environment, "/readyz"), READY_WITHIN_S)
        parts = wait_until(lambda: all_parts(process), READY_WITHIN_S)
        process.kill()
    assert psutil.wait_procs(parts, timeout=20)[1] == []

    with up(environment) as again:
        wait_until(lambda: get(environment, "/readyz"), READY_WITHIN_S)
        assert stop(again, signal.SIGTERM) == 0


def all_parts(process: subprocess.Popen[str]) -> list[psutil.Process] | None:
    """Return the parts; None until the sandbox gateway, which starts last, runs."""
    parts = [part for part in processes_of(process) if "infra.cli" in command_line_of(part)]
    return parts if any("sandbox-gateway" in command_line_of(part) for part in parts) else None


def test_a_taken_port_is_named(environment: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(environment["API_PORT"])))
        taken.listen()
        process = subprocess.run(
            [sys.executable, "-m", "infra.cli", "up"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert f"cannot listen on 127.0.0.1:{environment['API_PORT']}" in line


@pytest.mark.parametrize(
    ("command", "name", "value", "words"),
    [
        ("up", "API_HOST", "0.0.0.0", "loopback only"),  # noqa: S104 - it is refused
        ("api", "API_HOST", "0.0.0.0", "loopback only"),  # noqa: S104
        ("up", "OIDC_ISSUER", "http://issuer.example", "OIDC_ISSUER: an https address is needed"),
        ("api", "OIDC_JWKS_URL", "file:///etc/passwd", "OIDC_JWKS_URL: an https address is needed"),
        ("api", "EMBEDDED_ISSUER_KEYS", "/nonexistent", "EMBEDDED_ISSUER_KEYS: /nonexistent cannot be used"),
        ("api", "EMBEDDED_ISSUER_KEYS", __file__, "cannot be used"),
        ("up", "RAZORPAY_KEY_ID", "rzp_live_1", "RAZORPAY_KEY_SECRET is not set, but RAZORPAY_KEY_ID is"),
        ("api", "RAZORPAY_URL", "http://gateway.example", "RAZORPAY_URL: an https address is needed"),
        ("up", "RATE_CARD", "/nonexistent", "RATE_CARD: /nonexistent cannot be read"),
        ("up", "RATE_CARD", __file__, "is not a valid list of rate changes"),
    ],
)
def test_settings_are_checked_before_anything_starts(
    environment: dict[str, str], command: str, name: str, value: str, words: str
) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "infra.cli", command],
        env={**environment, name: value},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert words in line
    assert not Path(environment["DATA_DIR"]).exists()


def four_full_months(summary: Any) -> Any:
    months = summary["months"]
    return months if len(months) == MONTHS and all(month["credits"] > 0 for month in months) else None
