"""Whether Kafka brokers are really there: they have to answer a client, an open socket proves nothing."""

import socket

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError


def live_brokers(address: str) -> set[int]:
    """Ids of the brokers in the metadata that the broker at `host:port` hands out; none when it is silent."""
    if not _listens(address):
        return set()
    try:
        with KafkaAdminClient(bootstrap_servers=address, bootstrap_timeout_ms=5_000) as client:
            return {int(broker["broker_id"]) for broker in client.describe_cluster()["brokers"]}
    except (KafkaError, OSError):
        return set()


def _listens(address: str) -> bool:
    # Asked first, because the client logs an error for every refused connection.
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
