"""The payment commands: run the sandbox gateway, and reconcile a gateway with the ledger."""

from __future__ import annotations

import argparse
import logging
from contextlib import closing
from functools import partial

import msgspec
import psycopg

from infra.payments.reconciliation import make_reconciliation
from infra.service.composition import open_ledger
from infra.service.process import database_url, stop_on_signals
from infra.settings import InvalidSetting, Settings
from infra.up.servers import reachable_data_dir

log = logging.getLogger("creditledger")


def sandbox_gateway(settings: Settings, options: argparse.Namespace) -> int:
    """Run the sandbox payment gateway until SIGTERM or Ctrl-C."""
    from infra.embedded.gateway_sandbox.keys import KeyFolder
    from infra.embedded.gateway_sandbox.server import SandboxGateway

    stop = stop_on_signals()
    data_dir = reachable_data_dir(settings.data_dir.resolve())
    webhook_url = f"{settings.public_address}/v1/gateways/razorpay/webhooks"
    port = options.port or KeyFolder(data_dir).port()
    sandbox = SandboxGateway(data_dir, port=port, webhook_url=webhook_url)
    log.info("sandbox gateway at %s", sandbox.url)
    if not settings.names_gateway:
        log.info("the settings for other commands are in %s", sandbox.write_environment_file())
    sandbox.run(stop)
    return 0


def reconcile(settings: Settings, options: argparse.Namespace) -> int:
    """Compare a gateway's list with the ledger.

    Print a JSON line per difference; return 1 if there is one.
    """
    if options.first > options.last:
        raise InvalidSetting("--from is later than --to")
    url = database_url(settings)
    with closing(open_ledger(url, pool_size=2)) as ledger:
        connect = partial(psycopg.connect, url, autocommit=True)
        found = make_reconciliation(settings, ledger, connect)(options.gateway, options.first, options.last)
    for difference in found:
        print(msgspec.json.encode(difference).decode(), flush=True)  # noqa: T201 - the output
    log.info("%s and the ledger have %d differences", options.gateway, len(found))
    return 1 if found else 0
