"""A writer for chaos tests: opens organisations and adds credits while processes are killed.

It keeps what it did as plain data for the auditor. If a response is lost, it sends the request again with the
same idempotency key until it gets one, like a careful client of the API.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from random import Random
from threading import Event, Thread

from domain.credits.command_result import CommandResult
from domain.credits.events import GrantKind
from domain.credits.ledger import Ledger
from domain.shared.command_context import CommandContext
from domain.shared.command_runner import RecordedResult
from domain.shared.errors import StoreUnavailable
from domain.shared.event_store import IdempotencyKey
from domain.shared.money import Currency
from infra.clock import new_id, utc_now
from infra.service.composition import credits_of, open_ledger
from tests.auditor.accounts import Account, Addition
from tests.e2e.traffic import Organisation

ANSWERED_WITHIN_S = 90.0
PAUSE_S = 0.05


class LedgerWriter:
    """Opens organisations immediately, and adds credits to open ones in its own thread."""

    def __init__(self, database_url: str, seed: int) -> None:
        self._ledger: Ledger = open_ledger(database_url)
        self._random = Random(seed)
        self._opened: dict[str, Organisation] = {}
        self._additions: dict[str, list[Addition]] = {}
        self._stop = Event()
        self._thread: Thread | None = None
        self._failure: BaseException | None = None

    @property
    def accounts(self) -> list[Account]:
        """All open organisations, with every acknowledged addition."""
        return [
            Account(name, each.time_zone, tuple(self._additions[name]), each.opens == "in the middle")
            for name, each in self._opened.items()
        ]

    @property
    def names(self) -> list[str]:
        """The open organisations."""
        return list(self._opened)

    def open(self, organisations: Sequence[Organisation]) -> None:
        """Open organisations with their trial credits."""
        for each in organisations:
            self._retry_until_answered(
                lambda idempotency_key, each=each: credits_of(self._ledger).commands.open_organisation(  # type: ignore[misc]
                    each.id,
                    context=_request(),
                    time_zone=each.time_zone,
                    currency=Currency(each.currency),
                    trial_credits=each.trial_credits,
                    idempotency_key=idempotency_key,
                )
            )
            self._additions[each.id] = []
            self._opened[each.id] = each
            if each.trial_credits:
                self._additions[each.id].append(Addition("free_credits", each.trial_credits))

    def add(self, count: int) -> None:
        """Add credits so many times."""
        for _ in range(count):
            self._add_somewhere()

    def start(self) -> None:
        """Add credits until `close`."""
        self._thread = Thread(target=self._work, name="office")
        self._thread.start()

    def close(self) -> None:
        """Finish the current addition and stop. Raises the error of the thread, if any."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=ANSWERED_WITHIN_S)
            assert not self._thread.is_alive(), "an addition got no response"
            self._thread = None
        self._ledger.close()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            while not self._stop.wait(PAUSE_S):
                self._add_somewhere()
        except BaseException as error:  # `close` raises it in the test's own thread
            self._failure = error

    def _add_somewhere(self) -> None:
        organisation_id = self._random.choice(list(self._opened)[:50])
        credits_count = self._random.choice((1, 50, 3_000, 1_000_000))
        kind = self._random.choice(("purchase", "free_credits", "admin_grant"))
        payment_id = new_id()

        def add(idempotency_key: IdempotencyKey) -> RecordedResult[CommandResult]:
            if kind == "purchase":
                return credits_of(self._ledger).commands.record_purchase(
                    organisation_id,
                    credits_count,
                    payment_id=payment_id,
                    order_id="order-1",
                    gateway="razorpay",
                    context=_request(),
                    idempotency_key=idempotency_key,
                )
            return credits_of(self._ledger).commands.grant(
                organisation_id,
                credits_count,
                kind=GrantKind.ADMIN if kind == "admin_grant" else GrantKind.PROMOTIONAL,
                reason="goodwill",
                context=_request(),
                idempotency_key=idempotency_key,
            )

        self._retry_until_answered(add)
        self._additions[organisation_id].append(Addition(kind, credits_count))

    def _retry_until_answered(
        self, ask: Callable[[IdempotencyKey], RecordedResult[CommandResult]]
    ) -> RecordedResult[CommandResult]:
        key = new_id()
        idempotency_key = IdempotencyKey("office", key, sha256(key.encode()).digest())
        deadline = time.monotonic() + ANSWERED_WITHIN_S
        while True:
            try:
                return ask(idempotency_key)
            except StoreUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


def _request() -> CommandContext:
    return CommandContext(utc_now(), "staff-3", new_id())
