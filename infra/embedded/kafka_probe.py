"""Checks that Kafka brokers answer a client. An open socket is not enough."""

import socket

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError


def live_brokers(address: str) -> set[int]:
    """Return the broker ids that the broker at `host:port` knows; an empty set if it does not answer."""
    if not _listens(address):
        return set()
    try:
        with KafkaAdminClient(bootstrap_servers=address, bootstrap_timeout_ms=5_000) as client:
            return {int(broker["broker_id"]) for broker in client.describe_cluster()["brokers"]}
    except (KafkaError, OSError):
        return set()


def _listens(address: str) -> bool:
    # Checked first, because the client logs an error for each refused connection.
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
