"""A record whose header names are not UTF-8 is read like any other, and does not stop the consumer."""

from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from infra.kafka.tolerant_records import accept_any_header_name


class Name(str):
    """A header name that is encoded as the given bytes."""

    def __new__(cls, raw: bytes) -> "Name":
        name = super().__new__(cls, raw.decode("latin-1"))
        name.raw = raw
        return name

    raw: bytes

    def encode(self, *_: Any) -> bytes:
        return self.raw


def test_records_around_and_in_a_bad_header_are_all_read(
    broker: str, topic_name: Callable[[str], str]
) -> None:
    accept_any_header_name()
    topic = topic_name("headers")
    admin = KafkaAdminClient(bootstrap_servers=broker)
    admin.create_topics([NewTopic(topic, 1, 1)])
    admin.close()
    headers = [
        [("good", b"\xff\xfe")],
        [(Name(b"\xff\xfe"), b"\xff\xfe"), ("second", b""), (Name(b"caf\xe9"), b"x")],
        [],
    ]
    producer = KafkaProducer(bootstrap_servers=broker, linger_ms=50)
    for number, each in enumerate(headers):
        producer.send(topic, key=b"\xff\xfe", value=b"\xff\xfe%d" % number, headers=each)
    producer.close()

    consumer = KafkaConsumer(
        bootstrap_servers=broker, auto_offset_reset="earliest", consumer_timeout_ms=10_000
    )
    consumer.assign([TopicPartition(topic, 0)])
    read = [next(consumer) for _ in headers]
    consumer.close()

    assert [record.value for record in read] == [b"\xff\xfe0", b"\xff\xfe1", b"\xff\xfe2"]
    assert [record.key for record in read] == [b"\xff\xfe"] * 3
    assert read[0].headers == [("good", b"\xff\xfe")]
    assert read[1].headers == [("??", b"\xff\xfe"), ("second", b""), ("caf?", b"x")]
