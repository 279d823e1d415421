"""What README tells receivers of webhooks to do works."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.webhooks.endpoints import signed_headers

README = Path(__file__).resolve().parents[2] / "README.md"
OLD, NEW, OTHER = "whsec_AAAA", "whsec_BBBB", "whsec_CCCC"
BODY = b'{"type": "credit_ledger.credits_exhausted.v1"}'


@pytest.fixture
def is_genuine() -> Callable[..., bool]:
    """The function that README shows."""
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "hmac" in block
    ]
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
def test_a_receiver_knows_what_is_ours(
    is_genuine: Callable[..., bool], secret: str, body: bytes, sent_ago: timedelta, genuine: bool
) -> None:
    headers = signed_headers([NEW, OLD], "msg_1", BODY, datetime.now(UTC) - sent_ago)
    assert is_genuine(secret, headers, body) is genuine
