"""Delivers webhooks: makes deliveries of what the log tells, sends what is due, and keeps what became of it.

Nothing waits for a receiver but the thread that talks to it. An endpoint has one delivery under way at a
time, so first attempts arrive in order; one that fails rests, and takes at most half of the threads together
with the others that fail. One process is at work, and others stand by. Whatever is killed, a delivery is
attempted at least once, always under the same id.
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
_LOOK_EVERY: Final = timedelta(seconds=2)
_PURGE_EVERY: Final = timedelta(hours=1)
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
    """Runs in the calling thread, which alone speaks to the database; other threads send.

    Counters may be read from any thread. The connection must reach PostgreSQL itself, not a pool that shares
    sessions: it listens and holds a lock. `jitter` returns numbers from 0 to 1.
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
        self._ended: SimpleQueue[tuple[DueDelivery, Outcome]] = SimpleQueue()
        self._wakeup_receiver, self._wakeup_sender = socketpair()
        self._wakeup_receiver.setblocking(False)
        self._wakeup_sender.setblocking(False)
        self._backoff = Backoff(BACKOFF_INITIAL_S, BACKOFF_MAX_S)
        self._looked_at: datetime | None = None
        self._purged_at: datetime | None = None

    def run(self, stop: Event) -> None:
        """Deliver until told to stop; connect again whenever the database is lost. What is under way when
        told to stop is waited for.

        Raises:
            UnknownEventType: the log was written by a newer version of the ledger.
        """
        with ThreadPoolExecutor(self._threads, thread_name_prefix="webhook") as pool:
            while not stop.is_set():
                try:
                    with closing(psycopg.connect(self._conninfo, autocommit=True)) as connection:
                        self.is_leader = wait_for_leadership(
                            connection, _TAKE_LOCK, stop, "deliverer of webhooks"
                        )
                        if self.is_leader:
                            self._follow(connection, pool, stop)
                except Recoverable as error:
                    self.failures += 1
                    log.warning("webhooks interrupted, go on in %.1f s: %s", self._backoff.next_s, error)
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
        """Wait for a writer's word, or for a delivery to end."""
        ready, _, _ = select([connection.fileno(), self._wakeup_receiver.fileno()], [], [], POLL_S)
        if self._wakeup_receiver.fileno() in ready:
            self._wakeup_receiver.recv(_WAKEUP_BYTES)
        wait_for_events(connection, 0)

    def _start(self, connection: Connection, pool: ThreadPoolExecutor) -> None:
        """Send what is due, as far as there are threads for it."""
        now = self._clock()
        free = self._threads - len(self._in_flight)
        for delivery in delivery_queue.select_due(connection, now, free, list(self._in_flight)):
            failing = sum(1 for each in self._in_flight.values() if each.failures)
            if delivery.failures and failing >= self._threads // 2:
                break  # those that do not fail came before
            self._in_flight[delivery.endpoint_id] = delivery
            future = pool.submit(self._send, delivery, now)
            future.add_done_callback(partial(self._end, delivery))

    def _send(self, delivery: DueDelivery, now: datetime) -> Outcome:
        headers = signed_headers(delivery.live_secrets(now), delivery.message_id, delivery.body, now)
        return self._sender.send(delivery.url, headers, delivery.body)

    def _end(self, delivery: DueDelivery, done: Future[Outcome]) -> None:
        error = done.exception()
        if error is not None:
            log.error("delivery %s to %s", delivery.message_id, delivery.endpoint_id, exc_info=error)
        self._ended.put((delivery, Outcome(None, "an error of ours") if error else done.result()))
        with suppress(BlockingIOError):  # it rings already
            self._wakeup_sender.send(b"!")

    def _record_outcomes(self, connection: Connection, *, wait: bool = False) -> None:
        """Keep what became of the deliveries that have ended, after one has if asked to wait."""
        while self._in_flight:
            try:
                delivery, outcome = self._ended.get(block=wait)
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
            return  # it was removed meanwhile
        hopeless = outcome.is_gone or now - failing_since >= FAILURE_PERIOD_MAX
        if hopeless and self._endpoints.disable(delivery.endpoint_id, CommandContext(now, None, _CAUSE)):
            self.disabled += 1
            log.warning("webhook endpoint %s is disabled: %s", delivery.endpoint_id, outcome.error)

    def _refresh_metrics(self, connection: Connection) -> None:
        """Count what waits, and forget what is old; each now and then."""
        now = self._clock()
        if self._looked_at is None or now - self._looked_at >= _LOOK_EVERY:
            self.backlog = delivery_queue.backlog(connection, now)
            self._looked_at = now
        if self._purged_at is None or now - self._purged_at >= _PURGE_EVERY:
            delivery_queue.purge(connection, now - DELIVERY_RETENTION)
            self._purged_at = now
