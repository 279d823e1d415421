"""What the balances topic says of an organisation: its latest state, one record a key after compaction."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Processing(StrEnum):
    """May the pipeline go on for this organisation?"""

    ALLOWED = "allowed"
    PAUSED = "paused"


class PublicBalance(msgspec.Struct, frozen=True):
    """Credits of an organisation. `available` = `balance` - `on_hold`; processing is paused while it is not
    above 0. `position` is that of the organisation's latest event: of two records, the higher one is newer.
    """

    organisation_id: str
    available: int
    balance: int
    on_hold: int
    processing: Processing
    position: int


_encode = msgspec.json.Encoder().encode


def public_balance(organisation_id: str, balance: int, on_hold: int, position: int) -> bytes:
    """Return the message of an organisation's state, in credits."""
    available = balance - on_hold
    processing = Processing.ALLOWED if available > 0 else Processing.PAUSED
    return _encode(PublicBalance(organisation_id, available, balance, on_hold, processing, position))
