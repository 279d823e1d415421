"""The messages of the balances topic: the latest balance of each organisation, one record per key."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Processing(StrEnum):
    """Whether the pipeline may process photos for the organisation."""

    ALLOWED = "allowed"
    PAUSED = "paused"


class PublicBalance(msgspec.Struct, frozen=True):
    """The credits of an organisation.

    `available` = `balance` - `on_hold`. Processing is paused unless it is above 0. `position` is the log
    position of the organisation's latest event: of two records, the one with the higher position is newer.
    """

    organisation_id: str
    available: int
    balance: int
    on_hold: int
    processing: Processing
    position: int


_encode = msgspec.json.Encoder().encode


def public_balance(organisation_id: str, balance: int, on_hold: int, position: int) -> bytes:
    """Return the message of an organisation's balance, in credits."""
    available = balance - on_hold
    processing = Processing.ALLOWED if available > 0 else Processing.PAUSED
    return _encode(PublicBalance(organisation_id, available, balance, on_hold, processing, position))
