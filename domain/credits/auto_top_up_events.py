"""Events about auto top-up. They change no credits: payments do."""

from __future__ import annotations

from datetime import date
from enum import StrEnum

from domain.shared.aggregate import EventHeader


class HeldReason(StrEnum):
    """Why no top-up starts although credits are low."""

    LIMIT_REACHED = "limit_reached"
    """The day has had as many top-ups as are allowed."""
    PAYMENT_FAILED = "payment_failed"
    """The card was refused: the next attempt is tomorrow."""
    TOO_SMALL = "too_small"
    """After the purchase the balance was still below the threshold: the same again would not help."""


class OffReason(StrEnum):
    """Why auto top-up was switched off."""

    ASKED = "asked"
    PAYMENTS_FAILED = "payments_failed"
    """The card was refused `CONSECUTIVE_FAILURES_MAX` times."""
    PRICE_ROSE = "price_rose"
    """A top-up would cost more than the agreed maximum."""
    NOT_FOR_SALE = "not_for_sale"
    """This number of credits is no longer for sale, or the organisation is billed by agreement now."""


class AutoTopUpSwitchedOn(EventHeader, frozen=True):
    """Auto top-up is on: it buys credits with the card that paid `payment_id`.

    `amount_minor_max` is the most it may charge each time: the total of that payment, tax included.
    """

    credits: int
    threshold: int
    per_day: int
    payment_id: str
    amount_minor_max: int


class AutoTopUpChanged(EventHeader, frozen=True):
    """The credits of a top-up, the threshold or the number of top-ups a day changed."""

    credits: int
    threshold: int
    per_day: int


class AutoTopUpSwitchedOff(EventHeader, frozen=True):
    """Auto top-up is off."""

    reason: OffReason


class AutoTopUpBegun(EventHeader, frozen=True):
    """Credits were low, and a payment was started: the `number`-th of the organisation's `day`.

    The `failures` top-ups before it, in a row, had failed.
    """

    payment_id: str
    credits: int
    day: date
    number: int
    failures: int


class AutoTopUpHeld(EventHeader, frozen=True):
    """Credits are low, but nothing more is bought on this `day`; `per_day` is its limit."""

    reason: HeldReason
    day: date
    per_day: int
