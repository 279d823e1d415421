"""The function for webhook receivers in the documentation works."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.webhooks.endpoints import signed_headers
from tests.documents import DOCUMENTS, blocks

OLD, NEW, OTHER = "whsec_AAAA", "whsec_BBBB", "whsec_CCCC"
BODY = b'{"type": "credit_ledger.credits_exhausted.v1"}'


@pytest.fixture
def is_genuine() -> Callable[..., bool]:
    """The function that one of the documents shows."""
    (code,) = [block for document in DOCUMENTS for block in blocks(document, "python") if "hmac" in block]
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - it is our own
    found: Callable[..., bool] = names["is_genuine"]
    return found


@pytest.mark.parametrize(
    ("secret", "body", "sent_ago", "genuine"),
    [
        (NEW, BODY, timedelta(0), True),
        (OLD, BODY, timedelta(0), True),
        (OTHER, BODY, timedelta(0), False),
        (NEW, BODY + b" ", timedelta(0), False),
        (NEW, BODY, timedelta(minutes=6), False),
    ],
)
def test_a_receiver_verifies_our_messages(
    is_genuine: Callable[..., bool], secret: str, body: bytes, sent_ago: timedelta, genuine: bool
) -> None:
    headers = signed_headers([NEW, OLD], "msg_1", BODY, datetime.now(UTC) - sent_ago)
    assert is_genuine(secret, headers, body) is genuine
