"""The operator's commands: errors without a server, and how they find the servers of an `up`."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from domain.identity.principals import PrincipalKind, Role
from infra.cli.main import main
from infra.embedded import issuer as issuing
from infra.embedded.issuer import EmbeddedIssuer
from infra.identity.signing_keys import StaticKeys
from infra.identity.tokens import TokenVerifier
from tests.e2e.processes import service_environment
from tests.e2e.test_up import READY_WITHIN_S, environment, get, stop, up, wait_until  # noqa: F401

PASSWORD = "s3kr1t"  # noqa: S105 - of a login made here
BOUNDED_S = 30.0
"""Each waits for a server for at most five seconds; the rest of the time is for a busy machine."""
NO_SERVER = "127.0.0.1:1"
ISSUER = {"OIDC_ISSUER": "https://issuer.example"}
OF_DATABASE = ["api", "migrate", "rebuild", "audit check", "positions list", "up"]
OF_BROKER = ["dlq list", "simulate-pipeline", "up"]
WRONG_URLS = [
    "garbage://s3kr1t",
    "postgresql://u:s3kr1t@h:port/db",
    "postgresql://u:s3/kr1t@h/db",
    "postgresql://u:s3@kr1t@h/db",
]


@pytest.fixture
def data_dir(servers_root: Path, request: pytest.FixtureRequest) -> Path:
    """A data directory without an `up`."""
    return servers_root / f"none-{abs(hash(request.node.name)) % 10**8}"


def run(command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:  # noqa: F811
    """Run a command, which must end soon."""
    return subprocess.run(
        [sys.executable, "-m", "infra.cli", *command.split()],
        env=service_environment({"API_PORT": "0", "LOG_LEVEL": "INFO", **environment}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOUNDED_S,
        check=False,
    )


def error_line_of(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """Return the single line of a command that failed as expected."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "s3" not in line
    return line


@pytest.mark.parametrize("command", OF_DATABASE)
def test_a_database_that_does_not_answer(command: str, data_dir: Path) -> None:
    url = f"postgresql://u:{PASSWORD}@{NO_SERVER}/none"
    line = error_line_of(run(command, {"DATABASE_URL": url, "DATA_DIR": str(data_dir), **ISSUER}))
    assert "DATABASE_URL" in line
    assert "Connection refused" in line


@pytest.mark.parametrize(
    ("command", "url"),
    [
        *((command, WRONG_URLS[0]) for command in (*OF_DATABASE, "consume", "project")),
        *(("audit check", url) for url in WRONG_URLS[1:]),
    ],
)
def test_an_invalid_database_url(command: str, url: str, data_dir: Path) -> None:
    given = {"DATABASE_URL": url, "DATA_DIR": str(data_dir), **ISSUER}
    if command == "consume":
        given["KAFKA_BOOTSTRAP_SERVERS"] = NO_SERVER
    assert "DATABASE_URL is not a PostgreSQL URL" in error_line_of(run(command, given))


def test_a_database_that_accepts_but_never_responds(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/none"
        line = error_line_of(run("audit check", {"DATABASE_URL": url, "DATA_DIR": str(data_dir)}))
    assert "DATABASE_URL" in line
    assert "timeout" in line


@pytest.fixture
def refused_url(database: str) -> Iterator[str]:
    """URL of a database with a wrong password."""
    name = f"login_{os.getpid()}"
    login = sql.Identifier(name)
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'another'").format(login))
        yield f"postgresql://{name}:{PASSWORD}@127.0.0.1:{admin.info.port}/{admin.info.dbname}"
        admin.execute(sql.SQL("DROP ROLE {}").format(login))


def test_a_wrong_password(refused_url: str, data_dir: Path) -> None:
    line = error_line_of(run("audit check", {"DATABASE_URL": refused_url, "DATA_DIR": str(data_dir)}))
    assert "DATABASE_URL" in line
    assert "password authentication failed" in line


def test_the_owner_url_has_its_own_variable(migrated_database: str, data_dir: Path) -> None:
    given = {
        "DATABASE_URL": migrated_database,
        "MIGRATION_DATABASE_URL": f"postgresql://u:{PASSWORD}@{NO_SERVER}/none",
        "DATA_DIR": str(data_dir),
    }
    for command in ("migrate", "rebuild"):
        assert "MIGRATION_DATABASE_URL" in error_line_of(run(command, given))


@pytest.mark.parametrize("command", ["audit check", "positions list", "rebuild"])
def test_a_database_without_the_schema(command: str, database: str, data_dir: Path) -> None:
    done = run(command, {"DATABASE_URL": database, "DATA_DIR": str(data_dir)})
    assert done.returncode == 1
    assert "run `creditledger migrate`" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", OF_BROKER)
@pytest.mark.parametrize(
    ("servers", "words"), [(NO_SERVER, "no broker answers"), ("host:port", "is not host:port")]
)
def test_a_broker_that_does_not_answer(command: str, servers: str, words: str, data_dir: Path) -> None:
    given = {"KAFKA_BOOTSTRAP_SERVERS": servers, "DATA_DIR": str(data_dir)}
    line = error_line_of(run(command, given))
    assert "KAFKA_BOOTSTRAP_SERVERS" in line
    assert words in line
    assert not (data_dir / "postgres").exists()


@pytest.mark.parametrize("command", ["consume", "project"])
def test_long_running_parts_wait_for_their_database(command: str, data_dir: Path) -> None:
    given = {
        "DATABASE_URL": f"postgresql://u:{PASSWORD}@{NO_SERVER}/none",
        "KAFKA_BOOTSTRAP_SERVERS": NO_SERVER,
        "DATA_DIR": str(data_dir),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "infra.cli", command],
        env=service_environment(given),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=30)
    assert "DATABASE_URL: " in first
    assert "Connection refused; trying again until it answers" in first
    assert process.returncode == 0
    assert "Traceback" not in rest
    assert PASSWORD not in first + rest


@pytest.mark.parametrize("command", ["audit check", "positions list", "rebuild", "dlq list"])
def test_without_servers_and_without_an_up(command: str, data_dir: Path) -> None:
    line = error_line_of(run(command, {"DATA_DIR": str(data_dir)}))
    assert "is not set: only `creditledger up` has an embedded" in line
    assert not data_dir.exists()


def test_the_demo_needs_a_token_of_a_real_issuer(data_dir: Path) -> None:
    line = error_line_of(run("up --demo", {"DATA_DIR": str(data_dir), **ISSUER}), code=2)
    assert "PIPELINE_TOKEN is not set" in line
    assert not data_dir.exists()


def test_the_api_needs_an_issuer(data_dir: Path) -> None:
    url = f"postgresql://u:{PASSWORD}@{NO_SERVER}/none"
    line = error_line_of(run("api", {"DATABASE_URL": url, "DATA_DIR": str(data_dir)}), code=2)
    assert "OIDC_ISSUER is not set, so callers cannot be authenticated" in line


def test_outside_loopback_a_real_issuer_is_needed(data_dir: Path) -> None:
    url = f"postgresql://u:{PASSWORD}@{NO_SERVER}/none"
    everywhere = {"DATABASE_URL": url, "DATA_DIR": str(data_dir), "API_HOST": "0.0.0.0"}  # noqa: S104
    refused = error_line_of(run("api", everywhere | {"EMBEDDED_ISSUER_KEYS": "/any"}), code=2)
    assert "without OIDC_ISSUER the API listens on loopback only" in refused
    assert "Connection refused" in error_line_of(run("api", everywhere | ISSUER))


@pytest.mark.parametrize(
    ("arguments", "given", "words"),
    [
        ("staff", {}, "has no token issuer"),
        ("staff", ISSUER, "tokens come from https://issuer.example"),
    ],
)
def test_tokens_that_cannot_be_issued(
    arguments: str, given: dict[str, str], words: str, data_dir: Path
) -> None:
    assert words in error_line_of(run(f"token {arguments}", {"DATA_DIR": str(data_dir), **given}), code=2)


def test_tokens_of_the_embedded_issuer(data_dir: Path) -> None:
    issuer = EmbeddedIssuer(data_dir)
    issuer.start()
    here = {"DATA_DIR": str(data_dir)}
    verifier = TokenVerifier(StaticKeys(issuer.jwks()), issuer=issuing.ISSUER, audience=issuing.AUDIENCE)

    staff = verifier.principal(run("token staff --subject s-9", here).stdout.strip())
    assert (staff.subject, staff.kind) == ("s-9", PrincipalKind.STAFF)
    member = verifier.principal(run("token member --organisation org-1", here).stdout.strip())
    assert (member.kind, member.memberships) == (PrincipalKind.PERSON, {"org-1": Role.MEMBER})
    assert "--organisation ID" in error_line_of(run("token admin", here), code=2)


def test_audit_of_a_consistent_ledger(migrated_database: str, data_dir: Path) -> None:
    done = run("audit check", {"DATABASE_URL": migrated_database, "DATA_DIR": str(data_dir)})
    assert (done.returncode, done.stdout) == (0, "")
    assert "the audit has no findings" in done.stderr


def test_findings_are_json_lines(migrated_database: str, data_dir: Path) -> None:
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        connection.execute("UPDATE projections.positions SET position = 7 WHERE projection = 'balance'")
        connection.execute(
            """
            INSERT INTO projections.usage_months (stream, month, credits, runs, photos, events)
            VALUES (gen_random_uuid(), '2026-11-01', 5, 1, 5, 1)
            """
        )
    done = run("audit check", {"DATABASE_URL": migrated_database, "DATA_DIR": str(data_dir)})
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert findings
    assert all(finding["check"] for finding in findings)
    assert done.stderr.rstrip().endswith("1 finding" if len(findings) == 1 else f"{len(findings)} findings")


@pytest.mark.parametrize(
    "arguments", ["up --for 0", "up --for -1", "up --for nan", "up --rate -0.1", "simulate-pipeline --rate x"]
)
def test_arguments_out_of_bounds(arguments: str) -> None:
    done = run(arguments, {})
    assert done.returncode == 2
    assert arguments.split()[1] in done.stderr


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    done = run("--help", {})
    assert done.returncode == 0
    assert "Credit Ledger " in done.stdout
    for command in ("up", "api", "consume", "project", "migrate", "rebuild", "audit", "dlq", "positions"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: creditledger {command}")


def test_commands_find_the_servers_of_a_running_up(environment: dict[str, str]) -> None:  # noqa: F811
    published = Path(environment["DATA_DIR"]) / "environment"
    up_env = {name: environment[name] for name in ("DATA_DIR", "API_PORT")}
    with up(environment) as process:
        wait_until(lambda: get(environment, "/readyz"), READY_WITHIN_S)
        assert stat.S_IMODE(published.stat().st_mode) == 0o600

        second = run("up", up_env)
        assert second.returncode == 1
        assert f"another `creditledger up` runs in {environment['DATA_DIR']}" in second.stderr
        assert "stopped" not in second.stderr

        to_reconcile = "reconcile --gateway razorpay --from 2026-11-01 --to 2026-11-02"
        for command in ("audit check", "positions list", "rebuild", "migrate", "dlq list", to_reconcile):
            done = run(command, up_env)
            assert done.returncode == 0, done.stderr
            assert f"of the `up` that runs in {environment['DATA_DIR']}" in done.stderr
        assert "there are no dead letters" in run("dlq list", up_env).stderr
        assert [json.loads(line)["partition"] for line in run("positions list", up_env).stdout.splitlines()]
        mine = run("audit check", {**up_env, "DATABASE_URL": f"postgresql://u@{NO_SERVER}/none"})
        assert "DATABASE_URL: connection" in mine.stderr.splitlines()[-1]

        assert get(environment, "/readyz")
        assert stop(process, signal.SIGTERM) == 0
    assert not published.exists()
    assert "is not set" in error_line_of(run("audit check", up_env))


def test_the_state_of_a_killed_up_is_ignored(environment: dict[str, str]) -> None:  # noqa: F811
    published = Path(environment["DATA_DIR"]) / "environment"
    up_env = {name: environment[name] for name in ("DATA_DIR", "API_PORT")}
    with up(environment) as process:
        wait_until(published.exists, READY_WITHIN_S)
        process.kill()
        process.wait(timeout=10)
        found = run("audit check", up_env)
    with up(environment) as again:  # it takes over the servers that the first one left running
        wait_until(lambda: get(environment, "/readyz"), READY_WITHIN_S)
        assert stop(again, signal.SIGTERM) == 0
    assert "is not set" in error_line_of(found)
