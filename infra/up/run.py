"""Runs `creditledger up`: starts all parts, supervises them, stops them in order, and reports."""

from __future__ import annotations

import json
import socket
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any, Final

import msgspec

from infra.embedded.errors import EmbeddedServerError
from infra.invoicing.seller import seller_of
from infra.kafka.connections import Kafka
from infra.payments.gateways.wiring import open_gateways
from infra.service.process import stop_on_signals
from infra.settings import Settings, load_price_book, load_rate_card
from infra.simulator.demo import DEMO_ORGANISATIONS, DEMO_SUPPORT_CONTACT
from infra.up.child_processes import ChildProcess, PrefixedPrinter
from infra.up.demo import open_demo
from infra.up.instance_lock import AlreadyRunning, single_instance, write_environment
from infra.up.servers import Servers
from infra.up.tokens import example_commands, require_service_token, sign_in_links
from infra.up.verification import LedgerTotals, LoadVerifier, PublishedTotals

READY_WITHIN_S: Final = 60.0
SANDBOX_WITHIN_S: Final = 20.0
DRAINED_WITHIN_S: Final = 60.0
SUPERVISE_EVERY_S: Final = 0.2


def run_up(settings: Settings, *, demo: bool, for_s: float | None, rate: float) -> int:
    """Run all parts until a signal, or for `for_s` seconds; return the exit code.

    With `for_s`, the last line on stdout is a JSON report. The code is then 0 only if the ledger equals what
    was published.

    Raises:
        InvalidSetting, ServiceUnreachable: a part cannot run with the settings; nothing was started.
    """
    load_rate_card(settings.rate_card)  # fail here: a part would fail and restart again and again
    load_price_book(settings.price_book)
    seller_of(settings)
    if settings.names_gateway:
        for gateway in open_gateways(settings).values():
            gateway.close()
    if demo:
        require_service_token(settings)
    stop = stop_on_signals()
    printer = PrefixedPrinter(sys.stderr)
    servers = Servers(settings)
    try:
        with single_instance(servers.data_dir):
            _check_port_is_free(settings)
            servers.check_configured()
            return _run(settings, servers, printer, stop, demo=demo, for_s=for_s, rate=rate)
    except AlreadyRunning as error:
        printer.print_line("up", str(error))
        return 1


def _run(
    settings: Settings,
    servers: Servers,
    printer: PrefixedPrinter,
    stop: Event,
    *,
    demo: bool,
    for_s: float | None,
    rate: float,
) -> int:
    try:
        servers.start()
        if demo and not settings.support_contact:
            servers.environment["SUPPORT_CONTACT"] = DEMO_SUPPORT_CONTACT
        api_address = {"API_HOST": settings.api_host, "API_PORT": str(settings.api_port)}
        servers.environment |= api_address
        write_environment(servers.data_dir, servers.environment)
        for line in servers.descriptions:
            printer.print_line("up", line)
        return _Up(settings, servers, printer, stop).run(demo=demo, for_s=for_s, rate=rate)
    except EmbeddedServerError as error:
        printer.print_line("up", str(error))
        return 1
    finally:
        servers.stop()
        printer.print_line("up", "stopped")


class _Up:
    def __init__(self, settings: Settings, servers: Servers, printer: PrefixedPrinter, stop: Event) -> None:
        self._settings = settings
        self._servers = servers
        self._printer = printer
        self._stop = stop
        self._url = f"http://{settings.api_host}:{settings.api_port}"
        self._children = [
            ChildProcess(name, [command], servers.environment, printer)
            for name, command in (
                ("consumer", "consume"),
                ("projector", "project"),
                ("publisher", "publish"),
                ("webhooks", "deliver-webhooks"),
                ("api", "api"),
            )
        ]
        self._demo = False
        self._simulator: ChildProcess | None = None
        self._sent_totals_file = servers.data_dir / "tally.json"
        self._verifier = LoadVerifier(settings, servers.database_url, servers.bootstrap_servers)

    def run(self, *, demo: bool, for_s: float | None, rate: float) -> int:
        kafka = Kafka(self._settings, self._servers.bootstrap_servers)
        kafka.ensure_topics()
        kafka.close()
        for part in self._children:
            part.start()
        try:
            if not self._wait_until_ready():
                return 0 if self._stop.is_set() else 1
            self._start_sandbox()
            self._start_worker()
            before = self._begin(demo, rate)
            self._printer.print_line(
                "up", f"the API is at {self._url}, its documentation at {self._url}/docs"
            )
            if self._settings.oidc_issuer is None:
                organisation_id = DEMO_ORGANISATIONS[0].id if demo else "acme"
                opened = [organisation.id for organisation in DEMO_ORGANISATIONS] if demo else []
                for line in sign_in_links(self._settings, self._url, opened):
                    self._printer.print_line("up", line)
                for line in example_commands(self._settings, self._url, organisation_id, is_open=demo):
                    self._printer.print_line("up", line)
            self._printer.print_line("up", "ready; Ctrl-C stops it")
            self._supervise(for_s)
            published = self._drain()
            if for_s is None:
                return 0
            return self._report(before, published)
        finally:
            self._stop_children()

    def _start_sandbox(self) -> None:
        """Start the sandbox gateway. Only the worker needs it before the first payment."""
        port = self._servers.sandbox_port
        if port is not None:
            arguments = ["sandbox-gateway", "--port", str(port)]
            self._children.append(
                ChildProcess("gateway", arguments, self._servers.environment, self._printer)
            )
            self._children[-1].start()

    def _start_worker(self) -> None:
        """Start the worker when the sandbox gateway answers, because it asks about open payments at once."""
        port = self._servers.sandbox_port
        deadline = time.monotonic() + SANDBOX_WITHIN_S
        while port is not None and time.monotonic() < deadline and not self._stop.wait(0.05):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
        self._children.append(ChildProcess("worker", ["worker"], self._servers.environment, self._printer))
        self._children[-1].start()

    def _begin(self, demo: bool, rate: float) -> LedgerTotals:
        """Open the demo organisations, read the ledger's totals, and start the traffic."""
        self._demo = demo
        self._sent_totals_file.unlink(missing_ok=True)
        history = open_demo(self._servers.database_url) if demo else False
        self._verifier.wait_until_drained({}, DRAINED_WITHIN_S)
        before = self._verifier.read()
        if demo:
            arguments = ["simulate-pipeline", "--rate", str(rate), "--tally", str(self._sent_totals_file)]
            if history:
                arguments.append("--history")
            self._simulator = ChildProcess("pipeline", arguments, self._servers.environment, self._printer)
            self._simulator.start()
        return before

    def _supervise(self, for_s: float | None) -> None:
        ends_at = None if for_s is None else time.monotonic() + for_s
        while not self._stop.wait(SUPERVISE_EVERY_S):
            if ends_at is not None and time.monotonic() >= ends_at:
                return
            self._servers.supervise()
            for part in self._children:
                part.supervise()
            self._watch_simulator(restart=for_s is None)

    def _watch_simulator(self, *, restart: bool) -> None:
        """Restart the simulator if it exited. Without `restart`, print a message: its totals are lost."""
        if self._simulator is None:
            return
        if restart:
            self._simulator.supervise()
        elif self._simulator.pid is None:
            self._printer.print_line("up", "the simulated pipeline exited: the report cannot be equal")
            self._simulator = None

    def _drain(self) -> PublishedTotals:
        """Wait until the ledger has charged every published message.

        The embedded broker loses them on exit.
        """
        self._printer.print_line("up", "stopping: charging the remaining messages")
        published = self._stop_simulator()
        end_offsets = self._verifier.read_end_offsets()
        targets = {p: max(end, published.next_offsets.get(p, 0)) for p, end in end_offsets.items()}
        deadline = time.monotonic() + DRAINED_WITHIN_S
        while not self._verifier.wait_until_drained(targets, SUPERVISE_EVERY_S):
            if time.monotonic() > deadline:
                self._printer.print_line("up", "some messages were not charged in time")
                break
            for part in self._children:
                part.supervise()
        return published

    def _stop_simulator(self) -> PublishedTotals:
        if self._simulator is not None:
            self._simulator.stop()
        published = _read_sent_totals(self._sent_totals_file)
        if published is None:
            return PublishedTotals(0, 0, {}, {}, account_lost=self._demo)
        return published

    def _report(self, before: LedgerTotals, published: PublishedTotals) -> int:
        self._verifier.wait_until_published(DRAINED_WITHIN_S)
        report: dict[str, Any] = self._verifier.report(before, self._verifier.read(), published)
        print(json.dumps(report, default=msgspec.to_builtins), flush=True)  # noqa: T201 - the output
        return 0 if report["equal"] else 1

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline and not self._stop.wait(0.05):
            try:
                with urllib.request.urlopen(f"{self._url}/readyz", timeout=2):  # noqa: S310 - loopback
                    return True
            except (urllib.error.URLError, OSError):
                for part in self._children:
                    part.supervise()
        if not self._stop.is_set():
            self._printer.print_line("up", f"the API was not ready within {READY_WITHIN_S:.0f} s")
        return False

    def _stop_children(self) -> None:
        if self._simulator is not None:
            self._simulator.stop()
        for part in self._children:
            part.stop()


def _read_sent_totals(path: Path) -> PublishedTotals | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=PublishedTotals)
    except FileNotFoundError:
        return None


def _check_port_is_free(settings: Settings) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.api_host, settings.api_port))
        except OSError as error:
            address = f"{settings.api_host}:{settings.api_port}"
            raise SystemExit(f"cannot listen on {address} ({error}); set API_PORT to another port") from error
