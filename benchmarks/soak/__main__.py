"""`python -m benchmarks.soak`: run the whole service under load, kill parts, and check the ledger.

All parts run on loopback, as with `creditledger up --demo`: the simulated pipeline with holds, repeats and
late messages; reads by every role and writes over HTTP; a receiver that verifies webhooks. Parts are killed
at random times in the first two thirds of the run. Memory is measured in the last third.

At the end the usage must equal the pipeline's account, the additions the writer's account, and the deliveries
the events in the log. `creditledger audit check` must have no findings. Prints one JSON line; the exit code
is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import psycopg

from benchmarks.soak import load
from benchmarks.soak.load import Caller, Findings, Writer
from benchmarks.soak.receiver import WebhookReceiver, receiving
from benchmarks.soak.service import Service, audit, running
from benchmarks.soak.watch import ProcessMonitor, kill_at_random_times
from infra.simulator.demo import DEMO_ORGANISATIONS
from projections.connection import Connection

CLOSING_S: Final = 30.0
KILLS_FOR: Final = 2 / 3
DELIVERY_TIMEOUT_S: Final = 25.0
THRESHOLD: Final = 300
ORGANISATIONS: Final = [each.id for each in DEMO_ORGANISATIONS]

_ADDED: Final = "SELECT organisation_id, granted, purchased FROM projections.balances"
_DELIVERED: Final = """
    SELECT count(*) FROM ledger.events JOIN ledger.webhook_endpoints ON stream = originator_id
    WHERE organisation_id = %s AND notification_id > since_position AND topic = ANY(%s)
"""
_TOPICS: Final = [
    *("balance_went_low.v1", "credits_exhausted.v1", "credits_replenished.v1", "credits_purchased.v1"),
]
_PROJECTED: Final = 'SELECT min("position") >= %s FROM projections.positions'


def main() -> int:
    """Run the soak test, print the report, and return the exit code."""
    options = _parser().parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="creditledger-soak-", dir=options.folder) as folder:
        Path(folder).chmod(0o711)  # the embedded PostgreSQL runs as another account and must enter it
        report = _soak(Path(folder), options.seconds, options.rate, options.seed, options.log)
    report = {"ok": not report["findings"], "seconds": round(time.monotonic() - began), **report}
    print(json.dumps(report))
    return 0 if report["ok"] else 1


def _soak(folder: Path, seconds: float, rate: float, seed: int, log: Path) -> dict[str, Any]:
    findings, killed = Findings(), Counter[str]()
    loading, killing, watching = Event(), Event(), Event()
    with ExitStack() as open_until_the_end:
        receivers = {
            name: open_until_the_end.enter_context(receiving(WebhookReceiver(seed + number)))
            for number, name in enumerate(ORGANISATIONS)
        }
        service = open_until_the_end.enter_context(
            running(folder / "data", log, for_s=seconds + CLOSING_S, rate=rate)
        )
        _set_up(service, findings, receivers)
        before = _added(service)
        writer, watch = Writer(service, findings, ORGANISATIONS, loading), ProcessMonitor(service, findings)
        threads = [
            Thread(target=load.read, args=(service, findings, ORGANISATIONS, loading, seed + n))
            for n in range(3)
        ]
        threads += [
            Thread(target=writer.run, args=(seed,)),
            Thread(target=watch.run, args=(watching,)),
            Thread(target=kill_at_random_times, args=(service, killed, killing, seed)),
        ]
        for thread in threads:
            thread.start()
        _wait(service, findings, seconds * KILLS_FOR)
        killing.set()
        _wait(service, findings, seconds * (1 - KILLS_FOR))
        loading.set()
        watching.set()
        for thread in threads:
            thread.join()
        for receiver in receivers.values():
            receiver.refuses = False
        watch.check_limits()
        _check_deliveries(service, findings, receivers)
        _check_additions(_added(service), before, writer, findings)
        for finding in audit(service.data_dir):
            findings.add(f"audit: {finding}")
        closing = service.report()
        if closing is None or not closing["equal"]:
            findings.add(f"the ledger is not what was published: {closing and closing['differences']}")
        return {
            "findings": findings.wrong,
            "messages_published": closing and closing["messages_published"],
            "charges_recorded": closing and closing["charges_recorded"],
            "answers": dict(findings.statuses),
            "killed": dict(killed),
            "webhooks": {
                name: {"taken": len(each.taken), "repeats": each.repeats, "refused": each.refused}
                for name, each in receivers.items()
            },
            **watch.report(),
        }


def _set_up(service: Service, findings: Findings, receivers: dict[str, WebhookReceiver]) -> None:
    caller = Caller(service, findings, Event())
    for name, receiver in receivers.items():
        admin = service.bearer("soak-admin", organisations={name: "admin"})
        path = f"/v1/organisations/{name}"
        added = caller.call("POST", f"{path}/webhook-endpoints", admin, json={"url": receiver.url})
        caller.call("PUT", f"{path}/low-balance-threshold", admin, json={"credits": THRESHOLD})
        if added is None or added.status_code != 201:
            raise RuntimeError("no webhook endpoint could be added")
        receiver.secret = added.json()["secret"]
    caller.close()


def _wait(service: Service, findings: Findings, seconds: float) -> None:
    """Wait for some time. It is a finding if the service ends by itself."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if service.process.poll() is not None:
            findings.add("`creditledger up` ended by itself")
            return
        time.sleep(0.5)


def _added(service: Service) -> dict[str, tuple[int, int]]:
    """Return the credits granted and purchased, after all events in the log are projected."""
    with psycopg.connect(service.database_url, autocommit=True) as connection:
        (end,) = connection.execute("SELECT max(notification_id) FROM ledger.events").fetchall()[0]
        while not _is_projected(connection, end):
            time.sleep(0.1)
        return {name: (granted, purchased) for name, granted, purchased in connection.execute(_ADDED)}


def _is_projected(connection: Connection, position: int) -> bool:
    return bool(connection.execute(_PROJECTED, [position]).fetchall()[0][0])


def _check_additions(
    after: dict[str, tuple[int, int]], before: dict[str, tuple[int, int]], writer: Writer, findings: Findings
) -> None:
    for name in ORGANISATIONS:
        granted, purchased = (late - early for late, early in zip(after[name], before[name], strict=True))
        if (granted, purchased) != (writer.granted[name], writer.purchased[name]):
            findings.add(
                f"{name}: granted {granted}, purchased {purchased}; the writer was answered"
                f" {writer.granted[name]} and {writer.purchased[name]}"
            )


def _check_deliveries(service: Service, findings: Findings, receivers: dict[str, WebhookReceiver]) -> None:
    deadline = time.monotonic() + DELIVERY_TIMEOUT_S
    with psycopg.connect(service.database_url, autocommit=True) as connection:
        for name, receiver in receivers.items():
            expected = missing = -1
            while missing and time.monotonic() < deadline:
                row = connection.execute(_DELIVERED, [name, _TOPICS]).fetchone()
                expected = row[0] if row else 0
                missing = expected - len(receiver.taken)
                time.sleep(0.2)
            if missing:
                findings.add(f"{name}: {len(receiver.taken)} of {expected} webhooks were taken")
            if receiver.forged:
                findings.add(f"{name}: {receiver.forged} webhooks were not signed as they must be")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1_800, help="how long, half an hour if not given")
    parser.add_argument("--rate", type=float, default=20, help="usage messages a second, 20 if not given")
    parser.add_argument("--seed", type=int, default=1, help="of what happens by chance")
    parser.add_argument("--folder", help="where the service's data lies meanwhile; a short path")
    parser.add_argument("--log", type=Path, default=Path("var/soak.log"), help="where its lines go")
    return parser


if __name__ == "__main__":
    sys.exit(main())
