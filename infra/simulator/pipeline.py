"""Runs a simulation: the history first, then live traffic at its pace, until it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Any, Final

from infra.simulator.options import SimulatorOptions
from infra.simulator.publisher import Publisher
from infra.simulator.rates import Rates
from infra.simulator.tally import Tally
from infra.simulator.traffic import Clock, Traffic

_CATCH_UP_MAX_S: Final = 1.0
_TEND_EVERY_S: Final = 0.1


def run(
    options: SimulatorOptions,
    producer_factory: Callable[[], Any],
    stop: Event,
    clock: Clock,
    tally: Tally | None = None,
) -> Tally:
    """Publish until the traffic ends or `stop` is set, drain, and return the account of what was sent.

    `producer_factory` returns a new `kafka.KafkaProducer` (with `consumers.client.sending.PRODUCER_OPTIONS`)
    and is called again after a failure. A tally handed in can be read meanwhile; it needs the rates of the
    options. The topic has to exist, or to come into being: records wait for it.
    """
    tally = tally if tally is not None else Tally(Rates(options.store_originals_rate_millionths))
    traffic = Traffic(options)
    publisher = Publisher(producer_factory, options.topic, tally, stop)
    try:
        if options.history:
            for record in traffic.history(clock()):
                if not publisher.publish(record):
                    break
        if options.live_per_second > 0:
            if options.desk is not None:
                publisher.settle(options.drain_seconds)
                options.desk.open()
            _publish_live(traffic, options, publisher, stop, clock)
        while not stop.is_set() and not publisher.settle(_TEND_EVERY_S):
            continue
        publisher.settle(options.drain_seconds)
    finally:
        publisher.close()
    return tally


def _publish_live(
    traffic: Traffic, options: SimulatorOptions, publisher: Publisher, stop: Event, clock: Clock
) -> None:
    """Publish a message whenever one is due; after an outage, catch up with its last second only."""
    records = traffic.live(clock)
    published = 0
    due_s = time.monotonic()
    while options.live_messages_max is None or published < options.live_messages_max:
        while not stop.is_set() and (wait_s := due_s - time.monotonic()) > 0:
            publisher.tend()
            stop.wait(min(wait_s, _TEND_EVERY_S))
        record = None if stop.is_set() else next(records, None)
        if record is None or not publisher.publish(record):
            return
        published += 1
        due_s = max(due_s + 1 / options.live_per_second, time.monotonic() - _CATCH_UP_MAX_S)
