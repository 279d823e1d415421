"""The recount, compared with sums computed by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime
from uuid import UUID

import pytest

from tests.auditor.accounts import RateChange, Rates
from tests.auditor.history import inversions, key_of
from tests.auditor.lots import FREE, PAID, Lots
from tests.auditor.statement_rows import Statement, charges_of
from tests.auditor.wire import Message

RATES = Rates([RateChange("watermark_reprocess", 250_000, datetime(2026, 9, 1, tzinfo=UTC))])
AUGUST = datetime(2026, 8, 31, 18, 29, 59, tzinfo=UTC)  # 23:59:59 in Kolkata
SEPTEMBER = datetime(2026, 8, 31, 18, 30, tzinfo=UTC)  # midnight there


def message(
    photos: int,
    *,
    run: str = "run-1",
    usage_type: str = "photo_processing",
    at: datetime = AUGUST,
    ai_search: bool = True,
    event: tuple[int, str] = (1, "Marathon"),
    user: str | None = "u-1",
) -> Message:
    return Message("/s", "i", "org-1", run, usage_type, photos, ai_search, *event, user, None, at)


@pytest.mark.parametrize(
    ("usage_type", "ai_search", "at", "millionths"),
    [
        ("photo_processing", True, AUGUST, 1_000_000),
        ("photo_processing", False, AUGUST, 0),
        ("ai_image_rotation", False, AUGUST, 1_000_000),
        ("store_originals", True, AUGUST, 0),
        ("watermark_reprocess", True, datetime(2026, 8, 31, 23, 59, 59, 999_999, tzinfo=UTC), 100_000),
        ("watermark_reprocess", True, datetime(2026, 9, 1, tzinfo=UTC), 250_000),
    ],
)
def test_the_rate_in_force_applies(usage_type: str, ai_search: bool, at: datetime, millionths: int) -> None:
    assert RATES.millionths(usage_type, ai_search=ai_search, at=at) == millionths


def test_a_run_is_rounded_up_once_per_usage_type_and_rate() -> None:
    later = datetime(2026, 9, 2, tzinfo=UTC)
    charges = charges_of(
        [
            message(5, usage_type="watermark_reprocess"),  # 0.5: 1
            message(5, usage_type="watermark_reprocess"),  # 1.0: 0 more
            message(1, usage_type="watermark_reprocess"),  # 1.1: 1 more
            message(1, usage_type="watermark_reprocess", run="run-2"),  # its own 0.1: 1
            message(1, usage_type="watermark_reprocess", at=later),  # at another rate, 0.25: 1
            message(3),  # whole: 3
            message(9, usage_type="watermark_reprocess"),  # 2.0: 0 more
        ],
        "UTC",
        RATES,
    )
    assert [charge.credits for charge in charges] == [1, 0, 1, 1, 1, 3, 0]


def test_a_run_counts_in_the_month_of_its_first_charge() -> None:
    messages = [
        message(0, at=datetime(2026, 1, 1, tzinfo=UTC)),  # no photos: not shown
        message(7, ai_search=False, at=datetime(2026, 2, 1, tzinfo=UTC)),  # free: not shown
        message(2, at=SEPTEMBER, event=(1, "Marathon")),
        message(3, at=AUGUST, event=(2, "Fair"), user=None),
        message(4, run="run-2", at=AUGUST, event=(1, "Marathon 2026"), usage_type="ai_image_rotation"),
    ]
    statement = Statement.empty()
    statement.add("org-1", charges_of(messages, "Asia/Kolkata", RATES))
    august, september = date(2026, 8, 1), date(2026, 9, 1)
    assert statement.runs == {
        ("org-1", "run-1"): {
            "type": "usage",
            "credits": -5,
            "photos": 5,
            "occurred_at": AUGUST,
            "month": september,
            "actor": "u-1",
            "usage_types": ["photo_processing"],
            "event_ids": [1, 2],
            "event_name": "Marathon",
        },
        ("org-1", "run-2"): {
            "type": "usage",
            "credits": -4,
            "photos": 4,
            "occurred_at": AUGUST,
            "month": august,
            "actor": "u-1",
            "usage_types": ["ai_image_rotation"],
            "event_ids": [1],
            "event_name": "Marathon 2026",
        },
    }
    assert statement.months == {
        ("org-1", september): {"credits": 5, "photos": 5, "runs": 1, "events": 2},
        ("org-1", august): {"credits": 4, "photos": 4, "runs": 1, "events": 1},
    }
    assert statement.days == {
        ("org-1", date(2026, 9, 1), september): {"credits": 2, "photos": 2},
        ("org-1", date(2026, 8, 31), september): {"credits": 3, "photos": 3},
        ("org-1", date(2026, 8, 31), august): {"credits": 4, "photos": 4},
    }
    assert statement.event_totals == {
        ("org-1", 1): {
            "credits": 6,
            "photos": 6,
            "event_name": "Marathon 2026",
            "runs": 2,
            "first_occurred_at": AUGUST,
            "last_occurred_at": SEPTEMBER,
        },
        ("org-1", 2): {
            "credits": 3,
            "photos": 3,
            "event_name": "Fair",
            "runs": 1,
            "first_occurred_at": AUGUST,
            "last_occurred_at": AUGUST,
        },
    }
    assert {key: (row["credits"], row["event_name"]) for key, row in statement.events.items()} == {
        ("org-1", september, 1): (2, "Marathon"),
        ("org-1", september, 2): (3, "Fair"),
        ("org-1", august, 1): (4, "Marathon 2026"),
    }


def test_free_credits_are_spent_first_and_an_overdraft_is_paid_first() -> None:
    lots = Lots()
    assert lots.add(1, PAID, 10) == 0
    assert lots.add(2, FREE, 5) == 0
    assert lots.add(3, FREE, 5) == 0
    assert lots.charge(12) == ([[2, 5], [3, 5], [1, 2]], 0)
    assert lots.charge(10) == ([[1, 8]], 2)
    assert lots.add(6, PAID, 1) == 1
    assert lots.add(7, PAID, 4) == 1
    assert (lots.held, lots.overdraft) == ([[PAID, 7, 3, 3]], 0)


def test_the_order_of_a_history() -> None:
    assert inversions([(0, 1), (0, 2), (0, 9)]) == (set(), set())
    # 5 and 6 were parked while 7 and 8 were charged: 7 and 8 precede them.
    assert inversions([(0, 7), (0, 5), (0, 8), (0, 6)]) == ({(0, 5), (0, 6)}, {(0, 7), (0, 8)})


def test_a_key_starts_with_the_time_of_a_uuid() -> None:
    uuid = "0198f0c2-7a3b-7c4d-8e5f-0123456789ab"
    assert key_of("/s", uuid).hex.startswith("0198f0c27a3b")
    assert key_of("/s", uuid) != key_of("/t", uuid)
    assert key_of("/s", uuid.upper()) != key_of("/s", uuid)
    assert isinstance(key_of("/s", "report 17"), UUID)
    assert not key_of("/s", uuid.replace("-", "")).hex.startswith("0198f0c27a3b")
