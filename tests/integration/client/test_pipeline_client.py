"""The pipeline's client, with a real broker and a real API."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import pytest
import uvicorn
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from consumers.client import Balances, HoldRefused, Holds, LedgerUnreachable, PhotoEvent, UsageReporter
from consumers.client.sending import PRODUCER_OPTIONS
from consumers.client.usage import NotReported, uuid7
from consumers.usage.wire_format import decode_usage
from domain.credits.holds import HoldMode
from domain.pricing.rate_card import UsageType
from domain.shared.command_context import CommandContext
from infra.embedded.broker import EmbeddedBroker
from infra.migrations.migrate import migrate
from infra.service.composition import credits_of
from tests.integration.api.ledger_api import LedgerApi, ledger_api
from tests.integration.consumers.service import wait_until
from tests.servers import new_database

WITHIN_S = 30
PROCESSING = UsageType.PHOTO_PROCESSING


def producer(broker: str) -> Callable[[], KafkaProducer]:
    return lambda: KafkaProducer(bootstrap_servers=broker, **PRODUCER_OPTIONS)


def consumer(broker: str) -> Callable[[], KafkaConsumer]:
    return lambda: KafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest")


def create(broker: str, topic: str, partitions: int = 2) -> None:
    with KafkaAdminClient(bootstrap_servers=broker) as admin:
        admin.create_topics([NewTopic(topic, partitions, 1)])


class TestUsage:
    def test_the_ledger_accepts_the_reported_messages(
        self, broker: str, topic_name: Callable[[str], str]
    ) -> None:
        topic = topic_name("usage")
        create(broker, topic)
        with UsageReporter(producer(broker), "/photo-processing/worker-7", topic=topic) as reporter:
            ids = [
                reporter.report(
                    f"org-{number % 3}",
                    "run-88",
                    PROCESSING,
                    number,
                    event_id=1042,
                    event_name="City Marathon 2026",
                    user="u-17" if number % 2 else None,
                    hold_id="hold-8",
                )
                for number in range(100)
            ]
        reader = consumer(broker)()
        reader.assign([TopicPartition(topic, number) for number in range(2)])
        records: list[Any] = []
        deadline = time.monotonic() + WITHIN_S
        while len(records) < 100 and time.monotonic() < deadline:
            records += [record for batch in reader.poll(200).values() for record in batch]
        reader.close()
        reports = [decode_usage(record.key, record.value, record.headers) for record in records]
        assert sorted(report.message_id for report in reports) == sorted(ids)
        assert len(set(ids)) == 100
        assert sum(report.usage.photos for report in reports) == sum(range(100))
        assert {report.usage.hold_id for report in reports} == {"hold-8"}

    def test_an_invalid_message_is_refused_immediately(self, broker: str) -> None:
        with UsageReporter(producer(broker), "/worker") as reporter:
            for photos, run_id in ((-1, "run"), (1_000_001, "run"), (1, "")):
                with pytest.raises(msgspec.ValidationError):
                    reporter.report("org", run_id, PROCESSING, photos, event_id=1, event_name="")
        with pytest.raises(RuntimeError, match="closed"):
            reporter.report("org", "run", PROCESSING, 1, event_id=1, event_name="")
        reporter.close()

    def test_it_waits_for_an_unavailable_broker(self, servers_root: Path) -> None:
        with EmbeddedBroker(servers_root / "client-broker") as server:
            address = server.address
        reporter = UsageReporter(producer(address), "/worker", topic="usage")
        message_id = reporter.report("org", "run", PROCESSING, 1, event_id=1, event_name="")
        with pytest.raises(NotReported) as missing:
            reporter.flush(0.3)
        assert missing.value.message_ids == [message_id]
        with pytest.raises(NotReported):
            reporter.close(0.1)

    def test_ids_contain_their_time_and_are_unique(self) -> None:
        ids = [uuid7() for _ in range(1_000)]
        assert len(set(ids)) == 1_000
        assert {(each.version, each.variant) for each in ids} == {(7, "specified in RFC 4122")}
        assert abs((ids[0].int >> 80) / 1_000 - time.time()) < 60


class TestBalances:
    def publish(
        self, broker: str, topic: str, *balances: tuple[str, int, int] | tuple[str, None, int]
    ) -> None:
        sender = KafkaProducer(bootstrap_servers=broker)
        for name, available, position in balances:
            value = {"available": available, "balance": 0, "on_hold": 0, "position": position, "more": 1}
            content = None if available is None else json.dumps(value).encode()
            sender.send(topic, key=name.encode(), value=content)
        sender.flush()
        sender.close()

    def test_the_latest_balance_counts(self, broker: str, topic_name: Callable[[str], str]) -> None:
        topic = topic_name("balances")
        create(broker, topic)
        self.publish(broker, topic, ("rich", 5, 1), ("poor", 5, 2), ("poor", 0, 3), ("gone", 1, 4))
        with Balances(consumer(broker), topic=topic) as balances:
            assert balances.wait_until_loaded(WITHIN_S)
            wait_until(lambda: balances.allowed("gone"))
            assert [balances.allowed(name) for name in ("rich", "poor", "nobody")] == [True, False, False]
            self.publish(broker, topic, ("poor", 7, 5), ("gone", None, 0), ("rich", 0, 6))
            wait_until(lambda: balances.allowed("poor"))
            wait_until(lambda: not balances.allowed("rich"))
            wait_until(lambda: balances.balance("gone") is None)
            self.publish(broker, topic, ("poor", 0, 4), ("rich", 9, 7))
            wait_until(lambda: balances.allowed("rich"))
            assert balances.allowed("poor"), "a repeated older balance changes nothing"

    @pytest.mark.parametrize("records", [1, 20], ids=["shorter", "longer"])
    def test_a_recreated_topic_is_read_from_its_beginning(
        self,
        broker: str,
        topic_name: Callable[[str], str],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        records: int,
    ) -> None:
        monkeypatch.setattr("consumers.client.balances._TOPIC_CHECKED_EVERY_S", 0.2)
        topic = topic_name("balances")
        create(broker, topic, partitions=1)
        self.publish(broker, topic, *((f"org-{number}", 5, number) for number in range(5)))
        with Balances(consumer(broker), topic=topic) as balances:
            wait_until(lambda: balances.allowed("org-4"))
            with KafkaAdminClient(bootstrap_servers=broker) as admin:
                admin.delete_topics([topic])
            create(broker, topic, partitions=1)
            self.publish(broker, topic, *((f"anew-{number}", 5, 9 + number) for number in range(records)))
            wait_until(lambda: balances.allowed("anew-0"))
            wait_until(lambda: balances.allowed(f"anew-{records - 1}"))
            assert balances.allowed("org-4"), "known balances are kept"
            wait_until(lambda: "was recreated" in caplog.text)
            self.publish(broker, topic, ("org-4", 0, 99))
            wait_until(lambda: not balances.allowed("org-4"))

    def test_unreadable_records_are_skipped(self, broker: str, topic_name: Callable[[str], str]) -> None:
        topic = topic_name("balances")
        create(broker, topic, partitions=1)
        sender = KafkaProducer(bootstrap_servers=broker)
        sender.send(topic, key=b"org", value=b"not JSON")
        sender.send(topic, key=None, value=b"{}")
        sender.flush()
        sender.close()
        self.publish(broker, topic, ("org", 5, 1))
        with Balances(consumer(broker), topic=topic) as balances:
            wait_until(lambda: balances.allowed("org"))


class Flaky:
    """A proxy between the client and the API that loses the first response of some requests."""

    def __init__(self, port: int) -> None:
        self.losses = 0
        self.forwarded: list[str] = []
        flaky = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_S)
                headers = {name: value for name, value in self.headers.items() if name != "Host"}
                upstream.request("POST", self.path, body, headers | {"Host": "localhost"})
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                flaky.forwarded.append(self.headers["Idempotency-Key"])
                if flaky.losses:
                    flaky.losses -= 1
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def served(api: LedgerApi) -> Iterator[int]:
    """Serve the API over a socket and yield its port."""
    client = api.client()
    server = uvicorn.Server(
        uvicorn.Config(client.app, host="127.0.0.1", port=0, log_level="error", access_log=False)
    )
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def flaky(postgres_server: Any) -> Iterator[tuple[LedgerApi, Flaky]]:
    with new_database(postgres_server) as url:
        migrate(url)
        with ledger_api(url) as api, served(api) as port:
            between = Flaky(port)
            thread = Thread(target=between.server.serve_forever, daemon=True)
            thread.start()
            yield api, between
            between.server.shutdown()
            between.server.server_close()
            thread.join()


class TestHolds:
    def test_a_request_with_a_lost_response_is_sent_again_and_counts_once(
        self, flaky: tuple[LedgerApi, Flaky]
    ) -> None:
        api, between = flaky
        ledger = api.services.ledger
        now = api.services.clock()
        credits_of(ledger).commands.open_organisation("org/1", context=CommandContext(now, None, "r"))
        service = api.bearer("pipeline-1", roles=["service"])
        holds = Holds(between.url, headers=lambda: service)
        between.losses = 2
        hold = holds.place("org/1", "run-88", PROCESSING, 150)
        assert (hold.credits, hold.available, hold.status) == (150, 50, "open")
        assert len(between.forwarded) == 3
        assert len(set(between.forwarded)) == 1
        with pytest.raises(HoldRefused) as refused:
            holds.place("org/1", "run-89", PROCESSING, 51, mode=HoldMode.ALL_OR_NOTHING)
        assert (refused.value.problem, refused.value.status) == ("insufficient-credits", 402)
        between.losses = 1
        settled = holds.settle("org/1", hold.hold_id, 120, usage_type=PROCESSING)
        assert (settled.status, settled.available) == ("settled", 80)
        with pytest.raises(HoldRefused, match="already used its one hold"):
            holds.release("org/1", hold.hold_id)
        assert ledger.organisation("org/1").balance == 80

    def test_a_settlement_charges_unreported_photos_to_the_event_of_the_hold(
        self, flaky: tuple[LedgerApi, Flaky]
    ) -> None:
        api, between = flaky
        ledger = api.services.ledger
        context = CommandContext(api.services.clock(), None, "r")
        credits_of(ledger).commands.open_organisation("org", context=context)
        service = api.bearer("pipeline-1", roles=["service"])
        holds = Holds(between.url, headers=lambda: service)
        hold = holds.place("org", "run-88", PROCESSING, 30, event=PhotoEvent(1042, "City Marathon 2026"))
        holds.settle("org", hold.hold_id, 28)
        api.catch_up()
        (event,) = api.client().get("/v1/organisations/org/events").json()["events"]
        assert (event["event_id"], event["event_name"]) == (1042, "City Marathon 2026")

    def test_an_unavailable_api(self) -> None:
        with pytest.raises(LedgerUnreachable):
            Holds("http://127.0.0.1:1", retry_for_s=0.2).release("org", "hold-1")


def test_allowed_needs_no_network(broker: str, topic_name: Callable[[str], str]) -> None:
    """Not timed: it reads only memory, so it works without its broker."""
    stop = Event()

    def nobody() -> Any:
        stop.set()
        raise OSError("no broker")

    with Balances(nobody, topic=topic_name("balances")) as balances:
        assert stop.wait(WITHIN_S)
        assert not balances.allowed("org")
        assert not balances.wait_until_loaded(0)
