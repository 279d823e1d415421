"""Cursors: the start of a list's next page, as an opaque URL-safe text."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import MAXYEAR, datetime
from typing import Annotated, TypeVar

import msgspec

from domain.shared.errors import InvalidInput


class TransactionCursor(msgspec.Struct, frozen=True, array_like=True, tag="transactions"):
    """The last transaction of a page."""

    occurred_at: datetime
    kind: str
    reference: str

    def __post_init__(self) -> None:
        if self.occurred_at.tzinfo is None or self.occurred_at.year == MAXYEAR or "\0" in self.reference:
            raise ValueError("not a transaction cursor")


class ChargeCursor(msgspec.Struct, frozen=True, array_like=True, tag="charges"):
    """The first version that was not read yet."""

    version: int


class PhotoEventCursor(msgspec.Struct, frozen=True, array_like=True, tag="events"):
    """The last photo event of a page."""

    credits: int
    event_id: int


class InvoiceCursor(msgspec.Struct, frozen=True, array_like=True, tag="invoices"):
    """The last invoice or credit note of a page."""

    issued_at: datetime
    number: str

    def __post_init__(self) -> None:
        if self.issued_at.tzinfo is None or self.issued_at.year == MAXYEAR or "\0" in self.number:
            raise ValueError("not an invoice cursor")


class PaymentCursor(msgspec.Struct, frozen=True, array_like=True, tag="payments"):
    """The last payment of a page."""

    created_at: datetime
    payment_id: str

    def __post_init__(self) -> None:
        if self.created_at.tzinfo is None or self.created_at.year == MAXYEAR or "\0" in self.payment_id:
            raise ValueError("not a payment cursor")


class FlagCursor(msgspec.Struct, frozen=True, array_like=True, tag="flags"):
    """The last flag of a page: whether it was open, and the position it was raised at."""

    is_open: bool
    position: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


Cursor = TransactionCursor | ChargeCursor | PhotoEventCursor | InvoiceCursor | PaymentCursor | FlagCursor
CursorT = TypeVar(
    "CursorT", TransactionCursor, ChargeCursor, PhotoEventCursor, InvoiceCursor, PaymentCursor, FlagCursor
)


def encode_cursor(cursor: Cursor) -> str:
    """Encode a cursor as text."""
    return urlsafe_b64encode(msgspec.json.encode(cursor)).rstrip(b"=").decode()


def decode_cursor(text: str, cursor_type: type[CursorT]) -> CursorT:
    """Decode the text of a cursor.

    Raises:
        InvalidInput: the text is not a cursor of this list.
    """
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=cursor_type)
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidInput("cursor", "the cursor is not one that this list returned") from error
