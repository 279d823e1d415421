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
from typing import Any, Final

import psycopg
from psycopg import errors

from domain.errors import StoreError
from domain.facts import Request
from domain.webhooks import DELIVERIES_KEPT, FAILING_AT_MOST, signed_headers
from infra.webhooks import due
from infra.webhooks.due import Due
from infra.webhooks.endpoints import PostgresWebhookEndpoints
from infra.webhooks.outbox import Outbox
from infra.webhooks.sending import Outcome, Sender
from projections.leading import lead
from projections.log import CHANNEL, wait_for_entries

log = logging.getLogger(__name__)

THREADS: Final = 32
POLL_S: Final = 0.5
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MOST_S: Final = 5.0
_LOOK_EVERY: Final = timedelta(seconds=2)
_PURGE_EVERY: Final = timedelta(hours=1)
_BELL_BYTES: Final = 4_096
_CAUSE: Final = "webhook-delivery"

_LOCK: Final = 0x5745_4248_4F4F_4B53  # "WEBHOOKS": one deliverer per database
_TAKE_LOCK: Final = f"SELECT pg_try_advisory_lock({_LOCK})"

Connection = psycopg.Connection[Any]
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
        sender: Sender,
        clock: Callable[[], datetime],
        jitter: Callable[[], float],
        *,
        threads: int = THREADS,
    ) -> None:
        self.delivered = 0
        self.failed = 0
        self.disabled = 0
        self.failures = 0
        self.leads = False
        self.lag = 0
        self.backlog = due.Backlog(0, 0.0)
        self._conninfo = conninfo
        self._endpoints = endpoints
        self._sender = sender
        self._clock = clock
        self._jitter = jitter
        self._threads = threads
        self._outbox = Outbox()
        self._under_way: dict[str, Due] = {}
        self._ended: SimpleQueue[tuple[Due, Outcome]] = SimpleQueue()
        self._bell, self._ring = socketpair()
        self._bell.setblocking(False)
        self._ring.setblocking(False)
        self._backoff_s = BACKOFF_FIRST_S
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
                        self.leads = lead(connection, _TAKE_LOCK, stop, "deliverer of webhooks")
                        if self.leads:
                            self._follow(connection, pool, stop)
                except Recoverable as error:
                    self.failures += 1
                    log.warning("webhooks interrupted, go on in %.1f s: %s", self._backoff_s, error)
                    stop.wait(self._backoff_s)
                    self._backoff_s = min(2 * self._backoff_s, BACKOFF_MOST_S)
                finally:
                    self.leads = False
        self._bell.close()
        self._ring.close()

    def _follow(self, connection: Connection, pool: ThreadPoolExecutor, stop: Event) -> None:
        connection.execute(f"LISTEN {CHANNEL}")
        while not stop.is_set():
            self.lag = self._outbox.fill(connection, self._clock())
            self._keep(connection)
            self._start(connection, pool)
            self._look(connection)
            self._backoff_s = BACKOFF_FIRST_S
            if not self.lag:
                self._wait(connection)
        while self._under_way:
            self._keep(connection, wait=True)

    def _wait(self, connection: Connection) -> None:
        """Wait for a writer's word, or for a delivery to end."""
        ready, _, _ = select([connection.fileno(), self._bell.fileno()], [], [], POLL_S)
        if self._bell.fileno() in ready:
            self._bell.recv(_BELL_BYTES)
        wait_for_entries(connection, 0)

    def _start(self, connection: Connection, pool: ThreadPoolExecutor) -> None:
        """Send what is due, as far as there are threads for it."""
        now = self._clock()
        free = self._threads - len(self._under_way)
        for delivery in due.deliveries(connection, now, free, list(self._under_way)):
            failing = sum(1 for each in self._under_way.values() if each.failures)
            if delivery.failures and failing >= self._threads // 2:
                break  # those that do not fail came before
            self._under_way[delivery.endpoint_id] = delivery
            future = pool.submit(self._send, delivery, now)
            future.add_done_callback(partial(self._end, delivery))

    def _send(self, delivery: Due, now: datetime) -> Outcome:
        headers = signed_headers(delivery.live_secrets(now), delivery.message_id, delivery.body, now)
        return self._sender.send(delivery.url, headers, delivery.body)

    def _end(self, delivery: Due, done: Future[Outcome]) -> None:
        error = done.exception()
        if error is not None:
            log.error("delivery %s to %s", delivery.message_id, delivery.endpoint_id, exc_info=error)
        self._ended.put((delivery, Outcome(None, "an error of ours") if error else done.result()))
        with suppress(BlockingIOError):  # it rings already
            self._ring.send(b"!")

    def _keep(self, connection: Connection, *, wait: bool = False) -> None:
        """Keep what became of the deliveries that have ended, after one has if asked to wait."""
        while self._under_way:
            try:
                delivery, outcome = self._ended.get(block=wait)
            except Empty:
                return
            wait = False
            del self._under_way[delivery.endpoint_id]
            self._keep_one(connection, delivery, outcome)

    def _keep_one(self, connection: Connection, delivery: Due, outcome: Outcome) -> None:
        now = self._clock()
        if outcome.delivered:
            self.delivered += 1
            due.keep_success(connection, delivery, outcome, now)
            return
        self.failed += 1
        failing_since = due.keep_failure(connection, delivery, outcome, now, self._jitter())
        log.info("delivery %s to %s: %s", delivery.message_id, delivery.endpoint_id, outcome.error)
        if failing_since is None:
            return  # it was removed meanwhile
        hopeless = outcome.is_gone or now - failing_since >= FAILING_AT_MOST
        if hopeless and self._endpoints.disable(delivery.endpoint_id, Request(now, None, _CAUSE)):
            self.disabled += 1
            log.warning("webhook endpoint %s is disabled: %s", delivery.endpoint_id, outcome.error)

    def _look(self, connection: Connection) -> None:
        """Count what waits, and forget what is old; each now and then."""
        now = self._clock()
        if self._looked_at is None or now - self._looked_at >= _LOOK_EVERY:
            self.backlog = due.backlog(connection, now)
            self._looked_at = now
        if self._purged_at is None or now - self._purged_at >= _PURGE_EVERY:
            due.purge(connection, now - DELIVERIES_KEPT)
            self._purged_at = now
