"""Where a pipeline asks for credits before a run and settles after it."""

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

PAUSE_S: Final = 0.1
LOADED_WITHIN_S: Final = 10.0
CALM_S: Final = 2.0
"""When no balance has moved for so long, what was published is charged."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HoldReference:
    """Credits that are set aside for a run."""

    hold_id: str
    credits: int


class CreditChecks(Protocol):
    """What a simulated pipeline asks the ledger."""

    def open(self) -> None:
        """Get ready for live runs: what the history used is charged by then."""

    def may_run(self, organisation_id: str) -> bool:
        """Tell whether a new run may start."""

    def hold(
        self, organisation_id: str, run_id: str, usage_type: str, photos: int, *, ai_search: bool
    ) -> HoldReference | None:
        """Set credits aside for a run, as many as there are; None: it may not start."""

    def settle(self, organisation_id: str, hold_id: str, photos: int) -> None:
        """End a run with its photos in all."""

    def wait(self) -> bool:
        """Wait a moment for credits to come; tell whether the simulation is to end instead."""


class LedgerCreditChecks:
    """The ledger's own desk: balances from its compacted topic, holds over its API."""

    def __init__(self, balances: Balances, holds: Holds, stop: Event) -> None:
        self._balances = balances
        self._holds = holds
        self._stop = stop
        self._paused: set[str] = set()

    def open(self) -> None:
        self._balances.wait_until_loaded(LOADED_WITHIN_S)
        before, now = -1, self._balances.position
        while before != now and not self._stop.wait(CALM_S):
            before, now = now, self._balances.position

    def may_run(self, organisation_id: str) -> bool:
        allowed = self._balances.allowed(organisation_id)
        if not allowed and organisation_id not in self._paused:
            self._paused.add(organisation_id)
            log.info("%s has no credits available: its runs pause", organisation_id)
        elif allowed and organisation_id in self._paused:
            self._paused.discard(organisation_id)
            log.info("%s has credits again: its runs go on", organisation_id)
        return allowed

    def hold(
        self, organisation_id: str, run_id: str, usage_type: str, photos: int, *, ai_search: bool
    ) -> HoldReference | None:
        mode = HoldMode.ALL_OR_NOTHING if usage_type == AI_IMAGE_ROTATION else HoldMode.UP_TO
        return self._ask(
            lambda: self._holds.place(
                organisation_id, run_id, UsageType(usage_type), photos, mode=mode, ai_search=ai_search
            )
        )

    def settle(self, organisation_id: str, hold_id: str, photos: int) -> None:
        # Where it cannot be settled it lapses, and its messages are charged all the same.
        with suppress(HoldRefused, LedgerUnreachable):
            self._holds.settle(organisation_id, hold_id, photos)

    def wait(self) -> bool:
        return self._stop.wait(PAUSE_S)

    def _ask(self, place: Callable[[], PlacedHold]) -> HoldReference | None:
        try:
            placed = place()
        except HoldRefused as refused:
            log.info("no hold: %s", refused)
            return None
        except LedgerUnreachable as error:
            log.warning("the ledger does not answer: %s", error)
            return None
        return HoldReference(placed.hold_id, placed.credits)
