"""Delivers webhooks: creates deliveries from the log, sends due deliveries, and records their outcomes.

- A slow receiver blocks only the thread that sends to it.
- An endpoint has one delivery in flight at a time, so first attempts arrive in order.
- A failing endpoint pauses. All failing endpoints together use at most half of the threads.
- One process delivers, the others are on standby.
- Each delivery is attempted at least once, even if a process is killed. Every attempt has the same id.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import datetime, timedelta
from functools import partial
from queue import Empty, SimpleQueue
from select import select
from socket import socketpair
from threading import Event
from typing import Final

import psycopg
from psycopg import errors

from domain.shared.backoff import Backoff
from domain.shared.command_context import CommandContext
from domain.shared.errors import StoreError
from domain.shared.event_store import EVENTS_CHANNEL
from domain.webhooks.endpoints import DELIVERY_RETENTION, FAILURE_PERIOD_MAX, signed_headers
from infra.struct_types import prepare_struct_types
from infra.webhooks import delivery_queue
from infra.webhooks.delivery_queue import DueDelivery
from infra.webhooks.endpoints import PostgresWebhookEndpoints
from infra.webhooks.http_sender import HttpSender, Outcome
from infra.webhooks.outbox import Outbox
from projections.connection import Connection
from projections.engine.event_log import wait_for_events
from projections.engine.leader_election import wait_for_leadership

log = logging.getLogger(__name__)

THREADS: Final = 32
POLL_S: Final = 0.5
BACKOFF_INITIAL_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
_COUNT_INTERVAL: Final = timedelta(seconds=2)
_PURGE_INTERVAL: Final = timedelta(hours=1)
_WAKEUP_BYTES: Final = 4_096
_CAUSE: Final = "webhook-delivery"

_LOCK: Final = 0x5745_4248_4F4F_4B53  # "WEBHOOKS": one deliverer per database
_TAKE_LOCK: Final = f"SELECT pg_try_advisory_lock({_LOCK})"
Recoverable = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,  # a standby after a failover
    StoreError,
)


class WebhookDeliverer:
    """Runs in the calling thread, the only one that uses the database. Other threads send.

    Any thread may read the counters. The connection must go to PostgreSQL directly, not through a pooler that
    shares sessions, because it uses LISTEN and holds a lock. `jitter` returns numbers from 0 to 1.
    """

    def __init__(
        self,
        conninfo: str,
        endpoints: PostgresWebhookEndpoints,
        sender: HttpSender,
        clock: Callable[[], datetime],
        jitter: Callable[[], float],
        *,
        threads: int = THREADS,
    ) -> None:
        self.delivered = 0
        self.failed = 0
        self.disabled = 0
        self.failures = 0
        self.is_leader = False
        self.lag = 0
        self.backlog = delivery_queue.Backlog(0, 0.0)
        self._conninfo = conninfo
        self._endpoints = endpoints
        self._sender = sender
        self._clock = clock
        self._jitter = jitter
        self._threads = threads
        self._outbox = Outbox()
        self._in_flight: dict[str, DueDelivery] = {}
        self._finished: SimpleQueue[tuple[DueDelivery, Outcome]] = SimpleQueue()
        self._wakeup_receiver, self._wakeup_sender = socketpair()
        self._wakeup_receiver.setblocking(False)
        self._wakeup_sender.setblocking(False)
        self._backoff = Backoff(BACKOFF_INITIAL_S, BACKOFF_MAX_S)
        self._counted_at: datetime | None = None
        self._purged_at: datetime | None = None

    def run(self, stop: Event) -> None:
        """Deliver until `stop` is set, then finish the deliveries in flight. Reconnect to a lost database.

        Raises:
            UnknownEventType: a newer version of the ledger wrote the log.
        """
        prepare_struct_types()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="webhook") as pool:
            while not stop.is_set():
                try:
                    with closing(psycopg.connect(self._conninfo, autocommit=True)) as connection:
                        self.is_leader = wait_for_leadership(
                            connection, _TAKE_LOCK, stop, "webhook deliverer"
                        )
                        if self.is_leader:
                            self._follow(connection, pool, stop)
                except Recoverable as error:
                    self.failures += 1
                    log.warning("webhooks interrupted, continuing in %.1f s: %s", self._backoff.next_s, error)
                    stop.wait(self._backoff.advance())
                finally:
                    self.is_leader = False
        self._wakeup_receiver.close()
        self._wakeup_sender.close()

    def _follow(self, connection: Connection, pool: ThreadPoolExecutor, stop: Event) -> None:
        connection.execute(f"LISTEN {EVENTS_CHANNEL}")
        while not stop.is_set():
            self.lag = self._outbox.fill(connection, self._clock())
            self._record_outcomes(connection)
            self._start(connection, pool)
            self._refresh_metrics(connection)
            self._backoff.reset()
            if not self.lag:
                self._wait(connection)
        while self._in_flight:
            self._record_outcomes(connection, wait=True)

    def _wait(self, connection: Connection) -> None:
        """Wait for a notification of a writer, or for the end of a delivery."""
        ready, _, _ = select([connection.fileno(), self._wakeup_receiver.fileno()], [], [], POLL_S)
        if self._wakeup_receiver.fileno() in ready:
            self._wakeup_receiver.recv(_WAKEUP_BYTES)
        wait_for_events(connection, 0)

    def _start(self, connection: Connection, pool: ThreadPoolExecutor) -> None:
        """Start due deliveries, as many as there are free threads."""
        now = self._clock()
        free = self._threads - len(self._in_flight)
        for delivery in delivery_queue.select_due(connection, now, free, list(self._in_flight)):
            failing = sum(1 for each in self._in_flight.values() if each.failures)
            if delivery.failures and failing >= self._threads // 2:
                break  # due deliveries of healthy endpoints come first
            self._in_flight[delivery.endpoint_id] = delivery
            future = pool.submit(self._send, delivery, now)
            future.add_done_callback(partial(self._finish, delivery))

    def _send(self, delivery: DueDelivery, now: datetime) -> Outcome:
        headers = signed_headers(delivery.live_secrets(now), delivery.message_id, delivery.body, now)
        return self._sender.send(delivery.url, headers, delivery.body)

    def _finish(self, delivery: DueDelivery, future: Future[Outcome]) -> None:
        error = future.exception()
        if error is not None:
            log.error("delivery %s to %s failed", delivery.message_id, delivery.endpoint_id, exc_info=error)
        self._finished.put((delivery, Outcome(None, "internal error") if error else future.result()))
        with suppress(BlockingIOError):  # a wake-up is pending already
            self._wakeup_sender.send(b"!")

    def _record_outcomes(self, connection: Connection, *, wait: bool = False) -> None:
        """Record the outcomes of finished deliveries. With `wait`, wait for the first one."""
        while self._in_flight:
            try:
                delivery, outcome = self._finished.get(block=wait)
            except Empty:
                return
            wait = False
            del self._in_flight[delivery.endpoint_id]
            self._record_outcome(connection, delivery, outcome)

    def _record_outcome(self, connection: Connection, delivery: DueDelivery, outcome: Outcome) -> None:
        now = self._clock()
        if outcome.delivered:
            self.delivered += 1
            delivery_queue.record_success(connection, delivery, outcome, now)
            return
        self.failed += 1
        failing_since = delivery_queue.record_failure(connection, delivery, outcome, now, self._jitter())
        log.info("delivery %s to %s: %s", delivery.message_id, delivery.endpoint_id, outcome.error)
        if failing_since is None:
            return  # the endpoint was removed in the meantime
        must_disable = outcome.is_gone or now - failing_since >= FAILURE_PERIOD_MAX
        if must_disable and self._endpoints.disable(delivery.endpoint_id, CommandContext(now, None, _CAUSE)):
            self.disabled += 1
            log.warning("webhook endpoint %s is disabled: %s", delivery.endpoint_id, outcome.error)

    def _refresh_metrics(self, connection: Connection) -> None:
        """Count pending deliveries and delete old ones, each at its own interval."""
        now = self._clock()
        if self._counted_at is None or now - self._counted_at >= _COUNT_INTERVAL:
            self.backlog = delivery_queue.backlog(connection, now)
            self._counted_at = now
        if self._purged_at is None or now - self._purged_at >= _PURGE_INTERVAL:
            delivery_queue.purge(connection, now - DELIVERY_RETENTION)
            self._purged_at = now
