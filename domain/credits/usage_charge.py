"""The charge of a usage message: the decision that the ledger makes most often, written for speed."""

from __future__ import annotations

from datetime import datetime

from domain.credits.decision_steps import DecisionSteps
from domain.credits.events import UsageCharged
from domain.credits.hold_book import HoldBook
from domain.credits.lots import LotAllocation, draw, plan_draws
from domain.credits.organisation_state import apply_charge_to_run
from domain.credits.run_totals import credits_of_run
from domain.credits.usage import UsageReport
from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS
from domain.shared.aggregate import EventEnvelope
from domain.shared.calendar import local_day


def record_charge(
    organisation: DecisionSteps, report: UsageReport, rate_millionths: int, recorded_at: datetime
) -> EventEnvelope:
    """Decide and apply a charge in one step, for speed; a property test compares it with replay."""
    # These two can fail, so they come before any change of the state.
    usage = report.usage
    day = local_day(organisation.time_zone, report.occurred_at)
    if not organisation._pending:
        organisation._available_before = organisation.balance - organisation.on_hold
    settled = from_hold = 0
    photos = usage.photos
    if organisation.settlements:
        settled = HoldBook(organisation.holds, organisation.settlements).photos_already_settled(usage)
        photos -= settled
    has_fractional_rate = rate_millionths % WHOLE_CREDIT_MILLIONTHS
    if has_fractional_rate:
        run = (usage.run_id, usage.usage_type, rate_millionths)
        credits_count = credits_of_run(organisation.run_totals, run, photos)
    else:
        credits_count = photos * (rate_millionths // WHOLE_CREDIT_MILLIONTHS)
    if organisation.holds:
        from_hold = HoldBook(organisation.holds, organisation.settlements).credits_from_hold(
            usage, credits_count
        )
    if recorded_at < organisation.last_recorded_at:
        recorded_at = organisation.last_recorded_at
    else:
        organisation.last_recorded_at = recorded_at
    lots = organisation.lots
    overdraft = 0
    if credits_count == 0:
        draws: tuple[LotAllocation, ...] = ()
    elif lots and lots[0].remaining > credits_count:
        lot = lots[0]
        draws = (LotAllocation(lot.number, credits_count),)
        lot.remaining -= credits_count
    else:
        draws, overdraft = plan_draws(lots, credits_count)
        draw(lots, draws)
        organisation.overdraft += overdraft
    organisation.balance -= credits_count
    user, photo_event = usage.user, usage.photo_event
    event = UsageCharged(
        recorded_at,
        None if user is None else user.id,
        report.message_id,
        report.source,
        usage.run_id,
        usage.usage_type,
        usage.photos,
        usage.ai_search,
        rate_millionths,
        credits_count,
        draws,
        overdraft,
        photo_event.id,
        photo_event.name,
        report.occurred_at,
        day,
        usage.hold_id,
        settled,
        from_hold,
    )
    if has_fractional_rate or settled or organisation.holds:
        apply_charge_to_run(organisation, event)
    organisation.version += 1
    envelope = EventEnvelope(organisation.id, organisation.version, event)
    organisation._pending.append(envelope)
    return envelope
