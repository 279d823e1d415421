"""The simulator with a real broker: its account equals a recount of the bytes in the log."""

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from consumers.client.sending import PRODUCER_OPTIONS
from infra.embedded.broker import EmbeddedBroker
from infra.simulator.options import (
    MANY_FAULTS,
    NO_FAULTS,
    OrganisationTraffic,
    SimulatorOptions,
    Style,
)
from infra.simulator.pipeline import run
from infra.simulator.sent_totals import SentTotals

ORGANISATIONS = (
    OrganisationTraffic("stride-photos", "Asia/Kolkata", Style.SPORTS),
    OrganisationTraffic("lens-and-lace", "America/New_York", Style.WEDDINGS),
    OrganisationTraffic("campus-clicks", "Europe/London", Style.CAMPUS, (55, 60, 62, 11), 200),
)
PARTITIONS = 3
RATES = {
    "photo_processing": Fraction(1),
    "ai_image_rotation": Fraction(1),
    "watermark_reprocess": Fraction(1, 10),
    "store_originals": Fraction(0),
}


class Record(NamedTuple):
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def now() -> datetime:
    return datetime.now(UTC)


def create_topic(address: str, topic: str) -> None:
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        admin.create_topics({topic: {"num_partitions": PARTITIONS, "replication_factor": 1}})


def read_back(address: str, topic: str, last_offsets: dict[str, int]) -> Iterator[Record]:
    """Return every record of the topic up to its last acknowledged offsets, partition by partition."""
    for partition, last_offset in last_offsets.items():
        consumer = KafkaConsumer(
            bootstrap_servers=address, auto_offset_reset="earliest", consumer_timeout_ms=10_000
        )
        try:
            consumer.assign([TopicPartition(topic, int(partition))])
            for record in consumer:
                yield Record(record.key, record.value, record.headers)
                if record.offset >= last_offset:
                    break
        finally:
            consumer.close()


def parsed(record: Record) -> tuple[dict[str, Any], dict[str, Any]] | str:
    """Return the attributes and the data of a record's event, or its flaw."""
    headers = {name: content.decode() for name, content in record.headers}
    try:
        body = json.loads(record.value)
    except ValueError:
        return "not_json"
    if headers["content-type"] == "application/json":
        event = {name.removeprefix("ce_"): text for name, text in headers.items()}
        data = body
    else:
        event, data = body, body["data"]
    if "photos" not in data:
        return "missing_field"
    if record.key.decode() != event["subject"]:
        return "foreign_key"
    return event, data


def recounted(records: Iterable[Record]) -> dict[str, Any]:
    """Return the account of a log by brute force. The totals of runs are computed at the end."""
    malformed: Counter[str] = Counter()
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    first_bodies: dict[tuple[str, str], list[Any]] = {}
    photos: defaultdict[tuple[str, str], Counter[tuple[str, bool]]] = defaultdict(Counter)
    total = 0
    for record in records:
        total += 1
        outcome = parsed(record)
        if isinstance(outcome, str):
            malformed[outcome] += 1
            continue
        event, data = outcome
        organisation = counts[event["subject"]]
        body = [event["subject"], {**data, "user": None, "event": data["event"]["id"]}]
        identity = event["source"], event["id"]
        if identity in first_bodies:
            organisation["messages" if first_bodies[identity] == body else "conflicting"] += 1
            continue
        first_bodies[identity] = body
        organisation["messages"] += 1
        organisation["unique_messages"] += 1
        organisation["photos"] += data["photos"]
        photos[event["subject"], data["run_id"]][data["usage_type"], data["ai_search"]] += data["photos"]
    for (organisation_id, _), of_run in photos.items():
        credits = sum(
            ceil(RATES[usage_type] * number)
            for (usage_type, ai_search), number in of_run.items()
            if ai_search or usage_type != "photo_processing"
        )
        counts[organisation_id]["expected_credits"] += credits
        counts[organisation_id]["charged_runs"] += bool(credits)
    names = ("messages", "unique_messages", "conflicting", "photos", "expected_credits", "charged_runs")
    return {
        "acknowledged": total,
        "organisations": {
            organisation_id: {name: organisation[name] for name in names}
            for organisation_id, organisation in counts.items()
        },
        "malformed": dict(malformed),
        "conflicting": sum(organisation["conflicting"] for organisation in counts.values()),
    }


@contextmanager
def running(
    options: SimulatorOptions, factory: Callable[[], Any], sent_totals: SentTotals
) -> Iterator[threading.Event]:
    """Run a simulation in a thread; stop it and wait for it at the end."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(options, factory, stop, now, sent_totals))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(timeout=30)
    assert not thread.is_alive()


def wait_for_acknowledged(sent_totals: SentTotals, number: int) -> None:
    deadline = time.monotonic() + 45
    while sent_totals.acknowledged < number:
        assert time.monotonic() < deadline, sent_totals.as_dict()
        time.sleep(0.02)


def test_the_account_equals_a_recount_of_the_log(broker: str, topic_name: Callable[[str], str]) -> None:
    topic = topic_name("usage")
    create_topic(broker, topic)
    options = SimulatorOptions(
        ORGANISATIONS,
        topic=topic,
        live_per_second=5_000,
        live_messages_max=1_500,
        fault_rates=MANY_FAULTS,
    )
    sent_totals = run(
        options,
        lambda: KafkaProducer(bootstrap_servers=broker, **PRODUCER_OPTIONS),
        threading.Event(),
        now,
    ).as_dict()

    assert sent_totals.pop("unconfirmed") == []
    last_offsets = sent_totals.pop("last_offsets")
    assert sum(last + 1 for last in last_offsets.values()) == sent_totals["acknowledged"] > 2_000
    assert sent_totals["conflicting"] > 0
    assert len(sent_totals["malformed"]) == 3
    assert sent_totals == recounted(read_back(broker, topic, last_offsets))


def test_a_stop_is_prompt(broker: str, topic_name: Callable[[str], str]) -> None:
    topic = topic_name("usage")
    create_topic(broker, topic)
    options = SimulatorOptions(ORGANISATIONS, topic=topic, history=False, live_per_second=100)
    sent_totals = SentTotals()
    with running(
        options, lambda: KafkaProducer(bootstrap_servers=broker, **PRODUCER_OPTIONS), sent_totals
    ) as stop:
        wait_for_acknowledged(sent_totals, 20)
        stop.set()
        stopped_at = time.monotonic()
    assert time.monotonic() - stopped_at < 2
    assert sent_totals.unconfirmed == 0


class RecordingProducers:
    """Makes producers that store every record that the broker acknowledged, by its identity."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.acknowledged: dict[bytes, Record] = {}
        self.producers = 0

    def __call__(self) -> "RecordingProducers.Producer":
        producer = RecordingProducers.Producer(
            self, KafkaProducer(bootstrap_servers=self.address, **PRODUCER_OPTIONS)
        )
        self.producers += 1
        return producer

    class Producer:
        def __init__(self, witness: "RecordingProducers", producer: Any) -> None:
            self._witness = witness
            self._producer = producer
            self._sender = producer._sender

        def send(self, topic: str, *, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> Any:
            future = self._producer.send(topic, key=key, value=value, headers=headers)
            identity = value + dict(headers).get("ce_id", b"")
            record = Record(key, value, headers)
            future.add_callback(lambda _: self._witness.acknowledged.setdefault(identity, record))
            return future

        def close(self, timeout: float) -> None:
            self._producer.close(timeout=timeout)


def test_acknowledged_records_survive_a_restart_of_the_broker(
    servers_root: Path, topic_name: Callable[[str], str]
) -> None:
    topic = topic_name("usage")
    sent_totals = SentTotals()
    with EmbeddedBroker(servers_root / "restarted-broker") as server:
        create_topic(server.address, topic)
        witness = RecordingProducers(server.address)
        options = SimulatorOptions(
            ORGANISATIONS, topic=topic, history=False, live_per_second=400, fault_rates=NO_FAULTS
        )
        with running(options, witness, sent_totals):
            wait_for_acknowledged(sent_totals, 300)
            server.stop()
            before = sent_totals.acknowledged
            time.sleep(0.5)
            server.start()
            create_topic(server.address, topic)
            wait_for_acknowledged(sent_totals, before + 300)
        counted = sent_totals.as_dict()
        in_new_log = recounted(read_back(server.address, topic, counted["last_offsets"]))

    assert counted.pop("unconfirmed") == []
    del counted["last_offsets"]
    assert counted == recounted(witness.acknowledged.values())
    assert in_new_log["acknowledged"] >= counted["acknowledged"] - before
