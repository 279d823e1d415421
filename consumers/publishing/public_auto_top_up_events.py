"""The public forms of the events of automatic top-up."""

from __future__ import annotations

from typing import Final

from consumers.publishing.public_mapping import Data, PublicMapping, PublicMappings, iso_day
from domain.credits import auto_top_up_events


def _auto_top_up_terms(
    event: auto_top_up_events.AutoTopUpChanged | auto_top_up_events.AutoTopUpSwitchedOn,
) -> Data:
    return {"credits": event.credits, "threshold": event.threshold, "per_day": event.per_day}


def _auto_top_up_switched_on(event: auto_top_up_events.AutoTopUpSwitchedOn) -> Data:
    return {**_auto_top_up_terms(event), "payment_id": event.payment_id, "most_minor": event.amount_minor_max}


def _auto_top_up_switched_off(event: auto_top_up_events.AutoTopUpSwitchedOff) -> Data:
    return {"reason": event.reason.value}


def _auto_top_up_begun(event: auto_top_up_events.AutoTopUpBegun) -> Data:
    return {
        "payment_id": event.payment_id,
        "credits": event.credits,
        "day": iso_day(event.day),
        "number": event.number,
        "failures": event.failures,
    }


def _auto_top_up_held(event: auto_top_up_events.AutoTopUpHeld) -> Data:
    return {"reason": event.reason.value, "day": iso_day(event.day), "per_day": event.per_day}


AUTO_TOP_UP_MAPPINGS: Final[PublicMappings] = {
    auto_top_up_events.AutoTopUpSwitchedOn: PublicMapping(
        "credit_ledger.auto_top_up_switched_on.v1", _auto_top_up_switched_on
    ),
    auto_top_up_events.AutoTopUpChanged: PublicMapping(
        "credit_ledger.auto_top_up_changed.v1", _auto_top_up_terms
    ),
    auto_top_up_events.AutoTopUpSwitchedOff: PublicMapping(
        "credit_ledger.auto_top_up_switched_off.v1", _auto_top_up_switched_off
    ),
    auto_top_up_events.AutoTopUpBegun: PublicMapping(
        "credit_ledger.auto_top_up_begun.v1", _auto_top_up_begun
    ),
    auto_top_up_events.AutoTopUpHeld: PublicMapping("credit_ledger.auto_top_up_held.v1", _auto_top_up_held),
}
