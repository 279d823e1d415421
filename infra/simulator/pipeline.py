"""Runs a simulation: the history first, then live traffic at the configured rate until stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Any, Final

from consumers.client.sending import ReliableSender
from infra.simulator.options import SimulatorOptions
from infra.simulator.rates import Rates
from infra.simulator.sent_totals import SentTotals
from infra.simulator.traffic import Clock, Traffic
from infra.simulator.wire import Outgoing

_CATCH_UP_MAX_S: Final = 1.0
_MAINTENANCE_INTERVAL_S: Final = 0.1


def run(
    options: SimulatorOptions,
    producer_factory: Callable[[], Any],
    stop: Event,
    clock: Clock,
    sent_totals: SentTotals | None = None,
) -> SentTotals:
    """Publish until the traffic ends or `stop` is set. Then drain, and return the totals of what was sent.

    `producer_factory` returns a new `kafka.KafkaProducer` (with `consumers.client.sending.PRODUCER_OPTIONS`).
    It is called again after a failure. Another thread may read `sent_totals` during the run; it must have the
    rates of the options. If the topic does not exist yet, records wait for it.
    """
    sent_totals = (
        sent_totals if sent_totals is not None else SentTotals(Rates(options.store_originals_rate_millionths))
    )
    traffic = Traffic(options)
    sender = ReliableSender(producer_factory, options.topic, stop, sent_totals.acknowledge)
    try:
        if options.history:
            for record in traffic.history(clock()):
                if not sender.send(record):
                    break
        if options.live_per_second > 0:
            if options.credit_checks is not None:
                sender.wait_acknowledged(options.drain_seconds)
                options.credit_checks.open()
            _publish_live(traffic, options, sender, stop, clock)
        while not stop.is_set() and not sender.wait_acknowledged(_MAINTENANCE_INTERVAL_S):
            continue
        sender.wait_acknowledged(options.drain_seconds)
    finally:
        sender.close()
        sent_totals.set_unconfirmed(sender.in_flight)
    return sent_totals


def _publish_live(
    traffic: Traffic, options: SimulatorOptions, sender: ReliableSender[Outgoing], stop: Event, clock: Clock
) -> None:
    """Publish messages at the configured rate. After an outage, catch up on the last second only."""
    records = traffic.live(clock)
    published = 0
    due_s = time.monotonic()
    while options.live_messages_max is None or published < options.live_messages_max:
        while not stop.is_set() and (wait_s := due_s - time.monotonic()) > 0:
            sender.maintain()
            stop.wait(min(wait_s, _MAINTENANCE_INTERVAL_S))
        record = None if stop.is_set() else next(records, None)
        if record is None or not sender.send(record):
            return
        published += 1
        due_s = max(due_s + 1 / options.live_per_second, time.monotonic() - _CATCH_UP_MAX_S)
