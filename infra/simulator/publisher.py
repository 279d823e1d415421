"""Publishes the simulation's records, and keeps the tally of what the broker acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Event
from typing import Any

from consumers.client.sending import Record, ReliableSender
from infra.simulator.tally import Tally
from infra.simulator.wire import Outgoing


class Publisher:
    """A reliable sender whose records are counted. Only one thread may publish."""

    def __init__(self, producer_factory: Callable[[], Any], topic: str, tally: Tally, stop: Event) -> None:
        self._sender = ReliableSender(producer_factory, topic, stop)
        self._tally = tally
        self._under_way: dict[int, Outgoing] = {}
        self._published = 0

    def publish(self, record: Outgoing) -> bool:
        """Send a record, and wait while too many are under way; tell whether it was taken before the stop."""
        number, self._published = self._published, self._published + 1
        self._under_way[number] = record
        acknowledged = partial(self._acknowledged, number)
        taken = self._sender.send(
            Record(record.key, record.value, record.headers, acknowledged, record.waits)
        )
        if not taken:
            del self._under_way[number]
        return taken

    def tend(self) -> None:
        """See `ReliableSender.tend`."""
        self._sender.tend()

    def settle(self, seconds: float) -> bool:
        """See `ReliableSender.settle`."""
        return self._sender.settle(seconds)

    def close(self) -> None:
        """Close the producer, and name in the tally what is still not acknowledged."""
        self._sender.close()
        self._tally.leave_unconfirmed(list(self._under_way.values()))

    def _acknowledged(self, number: int, partition: int, offset: int) -> None:
        self._tally.acknowledge(self._under_way.pop(number), partition, offset)
