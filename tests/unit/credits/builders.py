"""Organisations, command contexts and usage for tests, with defaults for unspecified values."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import Any

from domain.credits.events import ChargeRefunded, GrantKind, UsageCharged
from domain.credits.organisation import Organisation
from domain.credits.organisation_state import OrganisationState
from domain.credits.refund_allocation import lot_opened_by
from domain.credits.usage import UsageReport
from domain.pricing.price_book import PUBLISHED_PRICES
from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS
from domain.shared.aggregate import Aggregate, EventEnvelope
from domain.shared.command_context import CommandContext
from domain.shared.money import Currency, cost_of
from tests.usage_reports import usage_report

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
TENTH = 100_000
"""The rate of watermarks in millionths: 10 %."""

_message_numbers = count(1)


def request(at: datetime = NOON, *, actor: str | None = "u-1", cause: str = "request-1") -> CommandContext:
    return CommandContext(at, actor, cause)


def usage(photos: int, **fields: Any) -> UsageReport:
    """Return a usage message with a new identity. All have the same run unless `run_id` is given."""
    defaults: dict[str, Any] = {
        "message_id": f"message-{next(_message_numbers)}",
        "occurred_at": NOON,
    }
    return usage_report(photos=photos, **(defaults | fields))


def opened(trial_credits: int = 0, **fields: Any) -> Organisation:
    """Return an organisation that has just opened."""
    defaults: dict[str, Any] = {
        "time_zone": "UTC",
        "currency": Currency.USD,
        "price_millionths": 20_000,
        "context": request(),
    }
    return Organisation.open("org-4711", trial_credits=trial_credits, **(defaults | fields))


def grant(organisation: Organisation, credits_count: int, kind: GrantKind = GrantKind.ADMIN) -> EventEnvelope:
    return organisation.grant(credits_count, kind, "goodwill", request())


def purchase(organisation: Organisation, credits_count: int, *, payment_id: str = "pay-1") -> EventEnvelope:
    tax_per_cent = PUBLISHED_PRICES.of(organisation.currency).tax_per_cent
    return organisation.purchase(
        credits_count,
        payment_id=payment_id,
        order_id="order-1",
        gateway="razorpay",
        unit_price_millionths=organisation.price_millionths,
        cost=cost_of(credits_count, organisation.price_millionths, tax_per_cent),
        currency=organisation.currency,
        context=request(),
    )


def charge(organisation: Organisation, photos: int, **fields: Any) -> EventEnvelope:
    """Charge photos at one credit each."""
    return organisation.charge(usage(photos, **fields), WHOLE_CREDIT_MILLIONTHS, NOON)


def charged(envelope: EventEnvelope) -> UsageCharged:
    assert isinstance(envelope.event, UsageCharged)
    return envelope.event


class Story:
    """An organisation and its history, which a refund needs."""

    def __init__(self, organisation: Organisation) -> None:
        self.organisation = organisation
        self.history: list[EventEnvelope] = list(organisation.collect_events())

    def refund(self, charge_event: EventEnvelope, credits_count: int | None = None) -> ChargeRefunded:
        self.history += self.organisation.collect_events()
        number = charge_event.originator_version
        envelope = self.organisation.refund(
            charge_event,
            credits_count,
            earlier_refunds=[
                past.event
                for past in self.history
                if isinstance(past.event, ChargeRefunded) and past.event.charge == number
            ],
            opened_lots=[
                lot
                for allocation in charged(charge_event).draws
                for lot in lot_opened_by(self.history[allocation.lot - 1])
            ],
            reason="photos were blurred",
            context=request(),
        )
        self.history += self.organisation.collect_events()
        self.organisation.check_invariants()
        assert isinstance(envelope.event, ChargeRefunded)
        return envelope.event


def lots_of(organisation: Organisation) -> list[tuple[int, int]]:
    """Return (number, remaining) of each lot in spend order."""
    return [(lot.number, lot.remaining) for lot in organisation.lots]


def state_of(organisation: Organisation) -> dict[str, Any]:
    """Return the whole state of an organisation, without uncollected events."""
    under_way = ("_pending", "_available_before")
    names = {*Aggregate.__slots__, *OrganisationState.__slots__} - {*under_way}
    state = {name: getattr(organisation, name) for name in names}
    state["lots"] = [(lot.kind, lot.number, lot.size, lot.remaining) for lot in organisation.lots]
    state["run_totals"] = [
        (key, total.photos, total.credits, total.last_recorded_at)
        for key, total in organisation.run_totals.items()
    ]
    return state
