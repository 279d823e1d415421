"""Runs a simulation: the history first, then live traffic at its pace, until it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Any, Final

from consumers.client.sending import ReliableSender
from infra.simulator.options import SimulatorOptions
from infra.simulator.rates import Rates
from infra.simulator.tally import Tally
from infra.simulator.traffic import Clock, Traffic
from infra.simulator.wire import Outgoing

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
    sender = ReliableSender(producer_factory, options.topic, stop, tally.acknowledge)
    try:
        if options.history:
            for record in traffic.history(clock()):
                if not sender.send(record):
                    break
        if options.live_per_second > 0:
            if options.desk is not None:
                sender.settle(options.drain_seconds)
                options.desk.open()
            _publish_live(traffic, options, sender, stop, clock)
        while not stop.is_set() and not sender.settle(_TEND_EVERY_S):
            continue
        sender.settle(options.drain_seconds)
    finally:
        sender.close()
        tally.leave_unconfirmed(sender.under_way)
    return tally


def _publish_live(
    traffic: Traffic, options: SimulatorOptions, sender: ReliableSender[Outgoing], stop: Event, clock: Clock
) -> None:
    """Publish a message whenever one is due; after an outage, catch up with its last second only."""
    records = traffic.live(clock)
    published = 0
    due_s = time.monotonic()
    while options.live_messages_max is None or published < options.live_messages_max:
        while not stop.is_set() and (wait_s := due_s - time.monotonic()) > 0:
            sender.tend()
            stop.wait(min(wait_s, _TEND_EVERY_S))
        record = None if stop.is_set() else next(records, None)
        if record is None or not sender.send(record):
            return
        published += 1
        due_s = max(due_s + 1 / options.live_per_second, time.monotonic() - _CATCH_UP_MAX_S)
