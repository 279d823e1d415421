"""The command `creditledger`: reads arguments and settings, and runs one command."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Final

import psycopg
from kafka.errors import KafkaError
from psycopg import errors
from pydantic import ValidationError

from domain.shared.errors import LedgerError
from infra.cli import commands, payment_commands
from infra.embedded.errors import EmbeddedServerError
from infra.service.process import ServiceUnreachable, reason
from infra.service.telemetry import log_to_stderr
from infra.settings import InvalidSetting, Settings
from infra.up.instance_lock import settings_of_running_instance
from infra.up.tokens import PEOPLE, ROLES
from projections.audit.seals import ExternalSeal
from projections.registry import ALL_PROJECTIONS

_DESCRIPTION: Final = """\
Credit Ledger keeps the credits of a photo platform's organisations. It charges usage from Kafka and serves
balances over HTTP. Start with `creditledger up --demo`.
"""
_EPILOG: Final = """\
Settings are environment variables; docs/settings.md lists them. Commands use the database and the broker of
DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS. Without these, they use the servers of the `up` in the same
DATA_DIR.
"""
_NO_SCHEMA: Final = (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedColumn)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 1 if it failed, 2 if an argument or setting is invalid."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings()
        log_to_stderr(settings.log_level)
        if options.run is not commands.up:
            settings = settings_of_running_instance(settings)
        code: int = options.run(settings, options)
    except ValidationError as error:
        for problem in error.errors():
            _print_error(f"{str(problem['loc'][0]).upper()}: {problem['msg']}")
        return 2
    except InvalidSetting as error:
        _print_error(str(error))
        return 2
    except (ServiceUnreachable, EmbeddedServerError) as error:
        _print_error(str(error))
        return 1
    except _NO_SCHEMA as error:
        _print_error(
            f"the database does not have this version's schema ({reason(error)}); run `creditledger migrate`"
        )
        return 1
    except (psycopg.OperationalError, errors.InsufficientPrivilege, KafkaError, LedgerError) as error:
        _print_error(reason(error))
        return 1
    return code


def _print_error(sentence: str) -> None:
    print(f"creditledger: {sentence}", file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="creditledger",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands_of = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def command(name: str, text: str, run: commands.Command) -> argparse.ArgumentParser:
        added = commands_of.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.set_defaults(run=run)
        return added

    up = command("up", "run the whole service, on embedded servers by default", commands.up)
    up.add_argument("--demo", action="store_true", help="open three organisations and simulate traffic")
    up.add_argument(
        "--for",
        dest="for_s",
        type=_seconds,
        metavar="SECONDS",
        help="stop after this time and print a report",
    )
    _add_rate(up)

    command("api", "serve the HTTP API", commands.api)
    token = command("token", "print a bearer token for the API of `up`", commands.token)
    sign_in = command("sign-in", "print a link that signs in to the pages of `up`", commands.sign_in)
    for parser_of_role, roles in ((token, ROLES), (sign_in, PEOPLE)):
        parser_of_role.add_argument("role", choices=roles, help="role of the bearer")
        parser_of_role.add_argument("--organisation", metavar="ID", help="organisation of an admin or member")
        parser_of_role.add_argument(
            "--subject", metavar="ID", help="opaque id of the bearer, stored in events"
        )
    command("consume", "charge usage from Kafka", commands.consume)
    command("project", "keep the projections current, which the API reads", commands.project)
    command("worker", "process due holds, payments, subscriptions and invoices", commands.worker)
    # The former name of `worker`, for one release. Without help text it is not listed.
    commands_of.add_parser("tend").set_defaults(run=commands.worker)
    sandbox = command(
        "sandbox-gateway",
        "run a sandbox payment gateway on loopback; no money moves",
        payment_commands.sandbox_gateway,
    )
    sandbox.add_argument("--port", type=int, metavar="N", help="the port; by default the last one used")
    command("deliver-webhooks", "send webhooks to the endpoints of organisations", commands.deliver_webhooks)
    command("publish", "publish events and balances to Kafka", commands.publish)
    command("migrate", "apply the schema migrations of this version", commands.migrate_schema)

    rebuild = command(
        "rebuild",
        "rebuild projections from the log, then replace the live ones",
        commands.rebuild_projections,
    )
    names = [projection.name for projection in ALL_PROJECTIONS]
    rebuild.add_argument(
        "projection", nargs="*", metavar="NAME", help=f"any of {', '.join(names)}; default: all"
    )

    audit = command("audit", "check the ledger, or seal the log", commands.audit)
    audit.add_argument(
        "what",
        choices=["check", "seal"],
        help="check: compare projections, events, lots and seals; print a JSON line per finding and exit with"
        " code 1 if there is one. seal: print a digest of the whole log, to store elsewhere",
    )
    audit.add_argument(
        "--seal",
        type=_stored_seal,
        action="append",
        default=[],
        metavar="SEAL",
        help="for check: a seal printed earlier, which the log must still match",
    )

    reconcile = command(
        "reconcile",
        "compare a payment gateway's list with payments and credits; print a JSON line per difference",
        payment_commands.reconcile,
    )
    reconcile.add_argument("--gateway", required=True, metavar="NAME", help="razorpay or payglocal")
    for name, dest, what in (("--from", "first", "first"), ("--to", "last", "last")):
        reconcile.add_argument(
            name,
            dest=dest,
            required=True,
            type=_day,
            metavar="DAY",
            help=f"{what} day (UTC), such as 2026-11-01",
        )

    dlq = command("dlq", "list dead letters", commands.dead_letters)
    dlq.add_argument("what", choices=["list"], help="print a JSON line per dead letter")

    positions = command("positions", "list or move the consumer's Kafka positions", commands.positions)
    positions.add_argument(
        "what",
        choices=["list", "accept-loss"],
        help="list: print a JSON line per partition; accept-loss: continue after lost records",
    )
    positions.add_argument("--partition", type=int, metavar="N", help="the partition, for accept-loss")

    simulate = command(
        "simulate-pipeline",
        "publish simulated usage of the demo organisations",
        commands.simulate_pipeline,
    )
    _add_rate(simulate)
    simulate.add_argument(
        "--history", action="store_true", help="publish four months of back-dated runs first"
    )
    simulate.add_argument("--tally", type=Path, metavar="FILE", help="write the totals sent to this file")
    return parser


def _add_rate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rate",
        type=_rate,
        default=1.0,
        metavar="N",
        help="live messages per second of the demo; default: 1",
    )


def _stored_seal(text: str) -> ExternalSeal:
    try:
        return ExternalSeal.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a day such as 2026-11-01") from None


def _seconds(text: str) -> float:
    seconds = _number(text)
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return seconds


def _rate(text: str) -> float:
    rate = _number(text)
    if rate < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return rate


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not a number")
    return number
