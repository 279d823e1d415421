"""`creditledger reconcile`, run as an operator does."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psycopg
import pytest

from domain.shared.errors import StoreUnavailable
from infra.cli import payment_commands
from infra.embedded.gateway_sandbox.keys import KeyFolder
from infra.embedded.gateway_sandbox.server import SandboxGateway
from infra.payments import reconciliation as reconciling
from infra.payments.reconciliation import Reconciler
from infra.settings import InvalidSetting, Settings
from tests.e2e.processes import service_environment
from tests.integration.payments.gateways.gateway_client import Payer

if TYPE_CHECKING:
    from tests.integration.payments.gateways.gateway_environment import GatewayEnvironment

TODAY = datetime.now(UTC).date()


@pytest.fixture
def environment(ledger_url: str, data_dir: Path, sandbox: SandboxGateway, tmp_path: Path) -> dict[str, str]:
    """Environment variables of the command."""
    return {
        **KeyFolder(data_dir).settings(sandbox.url),
        "DATABASE_URL": ledger_url,
        "DATA_DIR": str(tmp_path),
    }


def reconcile(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.cli", "reconcile", *arguments],
        env=service_environment(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_prints_one_line_per_difference_and_fails(
    gateway_env: GatewayEnvironment, payer: Payer, environment: dict[str, str]
) -> None:
    sale = gateway_env.sell("payglocal")
    payer.choose(sale.checkout, "pay")
    gateway_env.differences("payglocal")  # updates the projections
    order_id = gateway_env.payment(sale).order_id

    done = reconcile(
        environment, "--gateway", "payglocal", "--from", str(TODAY - timedelta(days=1)), "--to", str(TODAY)
    )

    assert done.returncode == 1, done.stderr
    lines = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert {
        "kind": "not_completed",
        "payment_id": sale.payment_id,
        "organisation_id": sale.organisation_id,
        "order_id": order_id,
        "gateway_payment_id": order_id,
        "currency": "USD",
        "gateway": 2_000,
    } in lines
    gateway_env.tracking.follow_up(sale.payment_id, context=gateway_env.request())


def test_it_prints_nothing_without_differences(
    gateway_env: GatewayEnvironment, environment: dict[str, str]
) -> None:
    assert not gateway_env.differences("razorpay", TODAY - timedelta(days=90), TODAY - timedelta(days=80))
    done = reconcile(
        environment,
        "--gateway",
        "razorpay",
        "--from",
        str(TODAY - timedelta(days=90)),
        "--to",
        str(TODAY - timedelta(days=80)),
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("gateway", "days", "sentence"),
    [
        ("cash", ("2026-11-01", "2026-11-02"), "cash is not configured; configured: razorpay, payglocal"),
        ("razorpay", ("2026-11-02", "2026-11-01"), "--from is later than --to"),
    ],
)
def test_invalid_arguments_are_explained(
    environment: dict[str, str], gateway: str, days: tuple[str, str], sentence: str
) -> None:
    settings = Settings.model_validate({name.lower(): value for name, value in environment.items()})
    first, last = map(date.fromisoformat, days)
    with pytest.raises(InvalidSetting, match=sentence):
        payment_commands.reconcile(settings, Namespace(gateway=gateway, first=first, last=last))


def test_nothing_is_compared_while_projections_are_behind(
    gateway_env: GatewayEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "PROJECTED_WITHIN_S", 0.0)
    gateway_env.sell("razorpay")
    with psycopg.connect(gateway_env.conninfo, autocommit=True) as connection:
        gateway, store = gateway_env.payments.gateways["razorpay"], gateway_env.ledger.runner.store
        with pytest.raises(StoreUnavailable, match="events behind"):
            Reconciler(gateway, store, connection).differences(TODAY, TODAY, datetime.now(UTC))


def test_an_unavailable_gateway_is_an_error(
    environment: dict[str, str], gateway_env: GatewayEnvironment
) -> None:
    gateway_env.differences("razorpay")
    done = reconcile(
        environment | {"RAZORPAY_URL": "http://127.0.0.1:9"},
        *("--gateway", "razorpay", "--from", str(TODAY), "--to", str(TODAY)),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "razorpay does not answer" in done.stderr
