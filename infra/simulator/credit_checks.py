"""Credit checks of the simulated pipeline: a hold before each run, its settlement after it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from typing import Final, Protocol

from consumers.client import Balances, HoldRefused, Holds, LedgerUnreachable, PlacedHold
from domain.credits.holds import HoldMode
from domain.pricing.rate_card import UsageType
from infra.simulator.rates import AI_IMAGE_ROTATION

POLL_S: Final = 0.1
LOAD_TIMEOUT_S: Final = 10.0
STABLE_AFTER_S: Final = 2.0
"""If no balance has changed for this time, all published messages are charged."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HoldReference:
    """A hold for a run: its id and its credits."""

    hold_id: str
    credits: int


class CreditChecks(Protocol):
    """The credit checks that a simulated pipeline needs."""

    def open(self) -> None:
        """Prepare for live runs. Return after the usage of the history is charged."""

    def may_run(self, organisation_id: str) -> bool:
        """Return whether a new run may start."""

    def hold(
        self, organisation_id: str, run_id: str, usage_type: str, photos: int, *, ai_search: bool
    ) -> HoldReference | None:
        """Place a hold for a run, with the available credits at most.

        Return None if the run may not start.
        """

    def settle(self, organisation_id: str, hold_id: str, photos: int) -> None:
        """Settle the hold of a run with its total photos."""

    def wait(self) -> bool:
        """Wait a moment for new credits. Return True if the simulation must end."""


class LedgerCreditChecks:
    """Credit checks with the ledger: balances from its compacted topic, holds over its HTTP API."""

    def __init__(self, balances: Balances, holds: Holds, stop: Event) -> None:
        self._balances = balances
        self._holds = holds
        self._stop = stop
        self._paused: set[str] = set()

    def open(self) -> None:
        self._balances.wait_until_loaded(LOAD_TIMEOUT_S)
        before, now = -1, self._balances.position
        while before != now and not self._stop.wait(STABLE_AFTER_S):
            before, now = now, self._balances.position

    def may_run(self, organisation_id: str) -> bool:
        allowed = self._balances.allowed(organisation_id)
        if not allowed and organisation_id not in self._paused:
            self._paused.add(organisation_id)
            log.info("organisation %s has no available credits: its runs pause", organisation_id)
        elif allowed and organisation_id in self._paused:
            self._paused.discard(organisation_id)
            log.info("organisation %s has credits again: its runs continue", organisation_id)
        return allowed

    def hold(
        self, organisation_id: str, run_id: str, usage_type: str, photos: int, *, ai_search: bool
    ) -> HoldReference | None:
        mode = HoldMode.ALL_OR_NOTHING if usage_type == AI_IMAGE_ROTATION else HoldMode.UP_TO
        return self._place(
            lambda: self._holds.place(
                organisation_id, run_id, UsageType(usage_type), photos, mode=mode, ai_search=ai_search
            )
        )

    def settle(self, organisation_id: str, hold_id: str, photos: int) -> None:
        # If the settlement fails, the hold expires. The messages of the run are charged anyway.
        with suppress(HoldRefused, LedgerUnreachable):
            self._holds.settle(organisation_id, hold_id, photos)

    def wait(self) -> bool:
        return self._stop.wait(POLL_S)

    def _place(self, place: Callable[[], PlacedHold]) -> HoldReference | None:
        try:
            placed = place()
        except HoldRefused as refused:
            log.info("no hold: %s", refused)
            return None
        except LedgerUnreachable as error:
            log.warning("the ledger does not answer: %s", error)
            return None
        return HoldReference(placed.hold_id, placed.credits)
