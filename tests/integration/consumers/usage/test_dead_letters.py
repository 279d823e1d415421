"""The dead-letter topic, on a real broker: unchanged records with their reason and origin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from consumers.usage.dead_letters import KafkaDeadLetters
from consumers.usage.ports import DeadLetterRecord
from domain.shared.errors import DeadLettersUnavailable

REJECTED_AT = datetime(2026, 11, 22, 9, 15, 0, 250_000, tzinfo=UTC)
WITHIN_MS = 15_000

Pair = tuple[bytes | None, bytes | None]


def letter(**changes: Any) -> DeadLetterRecord:
    fields: dict[str, Any] = {
        "reason": "Expected `int`, got `str`",
        "field": "data.photos",
        "topic": "usage",
        "partition": 3,
        "record_offset": 1_042,
        "record_key": b"org-4711",
        "record_value": b'{"photos": "5"}',
        "record_headers": [("traceparent", b"00-4b"), ("ce_id", b"\xff"), ("traceparent", b"")],
        "rejected_at": REJECTED_AT,
    }
    return DeadLetterRecord(**fields | changes)


ORIGIN = [
    ("dlq-reason", b"Expected `int`, got `str`"),
    ("dlq-field", b"data.photos"),
    ("dlq-topic", b"usage"),
    ("dlq-partition", b"3"),
    ("dlq-offset", b"1042"),
    ("dlq-time", b"2026-11-22T09:15:00.250000Z"),
]


@pytest.fixture
def topic(broker: str, topic_name: Callable[[str], str]) -> str:
    topic = topic_name("usage.dlq")
    with KafkaAdminClient(bootstrap_servers=broker) as admin:
        admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}})
    return topic


@pytest.fixture
def dead_letters(broker: str, topic: str) -> Iterator[KafkaDeadLetters]:
    dead_letters = KafkaDeadLetters(lambda: KafkaProducer(bootstrap_servers=broker), topic)
    yield dead_letters
    dead_letters.close()


def records_of(broker: str, topic: str, count: int) -> list[Any]:
    """Read the first records of a topic."""
    consumer = KafkaConsumer(bootstrap_servers=broker, consumer_timeout_ms=WITHIN_MS)
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        return list(islice(consumer, count))
    finally:
        consumer.close()


def send(dead_letters: KafkaDeadLetters, letters: Sequence[DeadLetterRecord]) -> None:
    dead_letters.send(letters)()


def test_a_record_arrives_unchanged_with_its_origin(
    broker: str, topic: str, dead_letters: KafkaDeadLetters
) -> None:
    sent = letter()
    send(dead_letters, [sent])
    (record,) = records_of(broker, topic, 1)
    assert (record.key, record.value) == (sent.record_key, sent.record_value)
    assert list(record.headers) == [*sent.record_headers, *ORIGIN]


@pytest.mark.parametrize(
    ("came", "arrives"),
    [
        ((None, b"x"), (None, b"x")),
        ((b"org", None), (b"org", None)),
        ((b"", b""), (b"", b"")),
        ((None, None), (None, b"")),
        ((b"\xff\x00", b"\x00" * 1_000), (b"\xff\x00", b"\x00" * 1_000)),
    ],
)
def test_any_record_can_be_a_dead_letter(
    broker: str, topic: str, dead_letters: KafkaDeadLetters, came: Pair, arrives: Pair
) -> None:
    key, value = came
    send(dead_letters, [letter(record_key=key, record_value=value, record_headers=[], field=None)])
    (record,) = records_of(broker, topic, 1)
    assert (record.key, record.value) == arrives
    assert list(record.headers) == [header for header in ORIGIN if header[0] != "dlq-field"]


def test_letters_keep_their_order(broker: str, topic: str, dead_letters: KafkaDeadLetters) -> None:
    waits = [dead_letters.send([letter(record_value=str(n).encode()), letter()]) for n in range(20)]
    for wait in waits:
        wait()
        wait()  # after a second wait it is still there once
    assert [record.value for record in records_of(broker, topic, 40)][::2] == [
        str(number).encode() for number in range(20)
    ]


def test_nothing_to_send_is_safe_at_once(dead_letters: KafkaDeadLetters) -> None:
    dead_letters.send([])()


def test_a_record_too_large_for_the_client_leaves_its_origin(broker: str, topic: str) -> None:
    """Its own topic accepted it because it was compressed."""
    dead_letters = KafkaDeadLetters(
        lambda: KafkaProducer(bootstrap_servers=broker, max_request_size=2_000), topic
    )
    try:
        send(
            dead_letters,
            [letter(record_offset=1), letter(record_value=b"x" * 5_000), letter(record_offset=3)],
        )
    finally:
        dead_letters.close()
    whole, origin, _ = records_of(broker, topic, 3)
    assert whole.value == letter().record_value
    assert (origin.key, origin.value) == (None, b"")
    assert list(origin.headers) == [*ORIGIN, ("dlq-omitted", b"key, value and headers: too large")]


# ------------------------------------------------------------------------------- a broker that fails


class Answer:
    """A producer's future."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def get(self, timeout: float) -> None:
        assert timeout > 0
        if self.error is not None:
            raise self.error


class Producer:
    """A producer whose broker refuses some records."""

    def __init__(self, refuses: Callable[[dict[str, Any]], Exception | None]) -> None:
        self.refuses = refuses
        self.sent: list[dict[str, Any]] = []
        self.closed = False

    def send(self, topic: str, **record: Any) -> Answer:
        assert not self.closed
        error = self.refuses(record)
        if error is None:
            self.sent.append(record)
        return Answer(error)

    def close(self, timeout: float) -> None:
        self.closed = True


def test_a_record_too_large_for_the_broker_leaves_its_origin() -> None:
    def refuses(record: dict[str, Any]) -> Exception | None:
        return MessageSizeTooLargeError() if len(record["value"]) > 100 else None

    producers: list[Producer] = []

    def connect() -> Producer:
        producers.append(Producer(refuses))
        return producers[-1]

    dead_letters = KafkaDeadLetters(connect, "usage.dlq")
    send(dead_letters, [letter(), letter(record_value=b"x" * 500), letter()])
    first, second = producers
    assert [record["value"] for record in first.sent] == [letter().record_value] * 2
    assert [record["headers"][-1][0] for record in second.sent] == ["dlq-omitted"]
    assert (first.closed, second.closed) == (True, False)


@pytest.mark.parametrize("error", [KafkaTimeoutError(), OSError("no route")])
def test_a_failed_producer_is_replaced(error: Exception) -> None:
    failing: list[Exception | None] = [error, None]
    producers: list[Producer] = []

    def connect() -> Producer:
        producers.append(Producer(lambda _: failing[len(producers) - 1]))
        return producers[-1]

    dead_letters = KafkaDeadLetters(connect, "usage.dlq")
    wait = dead_letters.send([letter()])
    with pytest.raises(DeadLettersUnavailable, match=r"usage\.dlq"):
        wait()
    assert producers[0].closed
    send(dead_letters, [letter()])
    assert len(producers[1].sent) == 1


def test_no_broker_is_unavailable() -> None:
    def connect() -> Producer:
        raise KafkaTimeoutError("no broker")

    with pytest.raises(DeadLettersUnavailable):
        KafkaDeadLetters(connect, "usage.dlq").send([letter()])
