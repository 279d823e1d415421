"""The three demo organisations: their settings, their additions of credits and their traffic.

This module holds only data; `infra.up.demo` opens the organisations and records their additions. The
additions cover the simulated history at every moment, and leave credits for live traffic.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from infra.simulator.options import OrganisationTraffic, Style
from infra.simulator.photo_events import Month

TRIAL_CREDITS: Final = 200
DEMO_SUPPORT_CONTACT: Final = "support@example.com"


class AdditionKind(StrEnum):
    """The source of added credits."""

    PURCHASE = "purchase"
    PROMOTIONAL = "promotional"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Addition:
    """Credits added at the start of a local day, `months_ago` months before the current month.

    A purchase has a gateway and its ids. A grant has a reason.
    """

    months_ago: int
    day: int
    credits: int
    kind: AdditionKind
    gateway: str = ""
    payment_id: str = ""
    order_id: str = ""
    reason: str = ""

    def at(self, time_zone: str, now: datetime) -> datetime:
        """Return the moment of the addition, in UTC."""
        zone = ZoneInfo(time_zone)
        month = Month.of(now.astimezone(zone).date()).earlier(self.months_ago)
        return datetime(month.year, month.number, self.day, tzinfo=zone).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class DemoOrganisation:
    """An organisation that is opened with `TRIAL_CREDITS` before its first addition."""

    id: str
    time_zone: str
    currency: str
    style: Style
    additions: tuple[Addition, ...] = ()
    history_credits: tuple[int, int, int, int] | None = None

    @property
    def traffic(self) -> OrganisationTraffic:
        """The traffic to simulate. It spends at most the added credits."""
        added = TRIAL_CREDITS + sum(addition.credits for addition in self.additions)
        return OrganisationTraffic(self.id, self.time_zone, self.style, self.history_credits, added)

    def opened_at(self, now: datetime) -> datetime:
        """Return the start of the third month before the current one. The history starts there."""
        return Addition(3, 1, 0, AdditionKind.ADMIN).at(self.time_zone, now)


def _razorpay(months_ago: int, day: int, credits: int, number: int) -> Addition:
    payment_id, order_id = f"pay_Demo{number:010}", f"order_Demo{number:010}"
    return Addition(months_ago, day, credits, AdditionKind.PURCHASE, "razorpay", payment_id, order_id)


def _payglocal(months_ago: int, day: int, credits: int, number: int) -> Addition:
    payment_id, order_id = f"gl_o-demo-{number:06}", f"demo-order-{number:06}"
    return Addition(months_ago, day, credits, AdditionKind.PURCHASE, "payglocal", payment_id, order_id)


DEMO_PEOPLE: Final = {
    "u-1": "Asha Rao",
    "u-2": "Ben Carter",
    "u-01": "Chitra Iyer",
    "u-02": "Daniel Osei",
    "u-03": "Elena Petrova",
    "u-04": "Farhan Sheikh",
    "u-05": "Grace Kim",
    "u-06": "Hugo Martins",
    "u-07": "Ishaan Mehta",
    "u-08": "Julia Novak",
    "u-09": "Kavya Nair",
    "u-10": "Liam Walsh",
    "u-11": "Meera Joshi",
    "u-12": "Noah Fischer",
    "s-1": "Olivia Grant",
    "a-1": "Pavel Horak",
    "demo": "9pic staff",
}
"""Fictitious names of the demo users and of the people who start runs, by user id."""

DEMO_ORGANISATIONS: Final = (
    DemoOrganisation(
        id="stride-photos",
        time_zone="Asia/Kolkata",
        currency="INR",
        style=Style.SPORTS,
        additions=(
            _razorpay(3, 1, 25_000, 1),
            _razorpay(2, 1, 25_000, 2),
            _razorpay(1, 1, 20_000, 3),
            Addition(1, 9, 2_500, AdditionKind.ADMIN, reason="goodwill for the slow evening of the 8th"),
            _razorpay(1, 12, 15_000, 4),
            _razorpay(0, 1, 75_000, 5),
        ),
    ),
    DemoOrganisation(
        id="lens-and-lace",
        time_zone="America/New_York",
        currency="USD",
        style=Style.WEDDINGS,
        additions=(
            _payglocal(3, 1, 12_000, 1),
            _payglocal(2, 1, 10_000, 2),
            _payglocal(1, 1, 10_000, 3),
            Addition(1, 10, 500, AdditionKind.PROMOTIONAL, reason="wedding season campaign"),
            _payglocal(1, 14, 5_000, 4),
            _payglocal(0, 1, 40_000, 5),
        ),
    ),
    DemoOrganisation(
        id="campus-clicks",
        time_zone="Europe/London",
        currency="USD",
        style=Style.CAMPUS,
        history_credits=(55, 60, 62, 11),
    ),
)
