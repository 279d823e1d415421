"""The command `creditledger`: reads its arguments and the settings, and starts what was asked for."""

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
from infra.up.instance_lock import join_running_instance
from infra.up.tokens import PEOPLE, ROLES
from projections.audit.seals import ExternalSeal
from projections.registry import ALL_PROJECTIONS

_DESCRIPTION: Final = """\
Credit Ledger: the credits of a photo platform's organisations, charged from usage in Kafka, served over HTTP.
Start with `creditledger up --demo`.
"""
_EPILOG: Final = """\
Settings are environment variables; README.md lists them. Commands take the database and the broker from
DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS, or else from the `up` that runs in the same DATA_DIR.
"""
_NO_SCHEMA: Final = (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedColumn)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 1 if it failed, 2 if it was asked for something wrong."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings()
        log_to_stderr(settings.log_level)
        if options.run is not commands.up:
            settings = join_running_instance(settings)
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
            f"the database has not this version's schema ({reason(error)}): `creditledger migrate` first"
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

    up = command("up", "run the whole service, on embedded servers unless others are given", commands.up)
    up.add_argument("--demo", action="store_true", help="open three organisations and simulate traffic")
    up.add_argument(
        "--for", dest="for_s", type=_seconds, metavar="SECONDS", help="stop after these seconds and report"
    )
    _add_rate(up)

    command("api", "serve the HTTP API", commands.api)
    token = command("token", "print a bearer token, to try the API of `up` with", commands.token)
    sign_in = command("sign-in", "print a link that opens the pages of `up` as somebody", commands.sign_in)
    for showing, roles in ((token, ROLES), (sign_in, PEOPLE)):
        showing.add_argument("role", choices=roles, help="what the bearer is")
        showing.add_argument("--organisation", metavar="ID", help="of an admin or member: the organisation")
        showing.add_argument("--subject", metavar="ID", help="the bearer's opaque id, which events keep")
    command("consume", "charge usage from Kafka", commands.consume)
    command("project", "keep what the API reads current", commands.project)
    command(
        "tend", "attend to holds, payments, subscriptions and invoices as they become due", commands.worker
    )
    sandbox = command(
        "sandbox-gateway",
        "run a payment gateway to try out with, on loopback; no money moves",
        payment_commands.sandbox_gateway,
    )
    sandbox.add_argument("--port", type=int, metavar="N", help="the port; the last one if not given")
    command(
        "deliver-webhooks", "tell organisations' own addresses of their credits", commands.deliver_webhooks
    )
    command("publish", "tell Kafka of events and balances", commands.publish)
    command("migrate", "bring the database to this version's schema", commands.migrate_schema)

    rebuild = command(
        "rebuild", "build projections anew beside the live ones, and swap", commands.rebuild_projections
    )
    names = [projection.name for projection in ALL_PROJECTIONS]
    rebuild.add_argument(
        "projection", nargs="*", metavar="NAME", help=f"all of them, or some of: {', '.join(names)}"
    )

    audit = command("audit", "prove that the books add up", commands.audit)
    audit.add_argument(
        "what",
        choices=["check", "seal"],
        help="check: compare projections, events, lots and seals; a JSON line per finding, exit code 1 if"
        " there is one. seal: print a digest of the whole log, to be kept elsewhere",
    )
    audit.add_argument(
        "--seal",
        type=_stored_seal,
        action="append",
        default=[],
        metavar="SEAL",
        help="of check: a seal that was printed before, and that the log must still have",
    )

    reconcile = command(
        "reconcile",
        "compare a payment gateway's list with payments and credits; a JSON line per difference",
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

    dlq = command("dlq", "look at refused messages", commands.dead_letters)
    dlq.add_argument("what", choices=["list"], help="print a JSON line per refused message")

    positions = command("positions", "see and move where charging stands in Kafka", commands.positions)
    positions.add_argument(
        "what",
        choices=["list", "accept-loss"],
        help="list: a JSON line per partition; accept-loss: go on after records that are gone",
    )
    positions.add_argument("--partition", type=int, metavar="N", help="the partition of accept-loss")

    simulate = command(
        "simulate-pipeline",
        "publish believable usage of the demo's organisations",
        commands.simulate_pipeline,
    )
    _add_rate(simulate)
    simulate.add_argument("--history", action="store_true", help="begin with four months of back-dated runs")
    simulate.add_argument("--tally", type=Path, metavar="FILE", help="where to leave the account of it")
    return parser


def _add_rate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rate",
        type=_rate,
        default=1.0,
        metavar="N",
        help="live messages a second of the demo, 1 if not given",
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
        raise argparse.ArgumentTypeError(f"{text} is no day such as 2026-11-01") from None


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
