"""Cursors survive a round trip, and every other text is refused."""

import re
from base64 import urlsafe_b64encode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.shared.errors import InvalidInput
from projections.query.cursors import (
    ChargeCursor,
    PhotoEventCursor,
    TransactionCursor,
    decode_cursor,
    encode_cursor,
)

AT = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    "cursor", [TransactionCursor(AT, "usage", "läuf/88?"), ChargeCursor(17), PhotoEventCursor(500, 1042)]
)
def test_a_cursor_is_url_safe_and_survives_a_round_trip(
    cursor: TransactionCursor | ChargeCursor | PhotoEventCursor,
) -> None:
    text = encode_cursor(cursor)

    assert re.fullmatch(r"[\w-]+", text, re.ASCII)
    assert decode_cursor(text, type(cursor)) == cursor


@given(text=st.text(max_size=60))
def test_other_text_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        decode_cursor(text, TransactionCursor)
    assert refused.value.field == "cursor"


@pytest.mark.parametrize(
    "content",
    [
        '["charges",17]',
        '["transactions","2026-07-01T12:00:00","usage","run-88"]',
        '["transactions","9999-12-31T23:59:59Z","usage","run-88"]',
        '["transactions","2026-07-01T12:00:00Z","usage","run\\u0000"]',
        '["transactions",1,"usage","run-88"]',
        "[]",
    ],
)
def test_cursors_of_other_lists_and_forged_ones_are_refused(content: str) -> None:
    with pytest.raises(InvalidInput):
        decode_cursor(urlsafe_b64encode(content.encode()).decode().rstrip("="), TransactionCursor)
