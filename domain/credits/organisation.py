"""The Organisation aggregate: its decisions. Its state is in `domain.credits.organisation_state`.

A decision checks, begins with `_begin`, builds an event and records it. Value objects decide about holds,
auto top-up, the subscription and refunds; the organisation records what they decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from domain.credits.audit_events import AuditEvent
from domain.credits.auto_top_up import LastTopUpStatus, TopUpTerms, require_on
from domain.credits.auto_top_up_events import (
    AutoTopUpBegun,
    AutoTopUpChanged,
    AutoTopUpSwitchedOff,
    AutoTopUpSwitchedOn,
    OffReason,
)
from domain.credits.decision_steps import DecisionSteps
from domain.credits.errors import CurrencyMismatch, RefundExceedsPurchase
from domain.credits.events import (
    ChargeRefunded,
    CreditsGranted,
    CreditsPurchased,
    GrantKind,
    HoldReleased,
    HoldSettled,
    LowBalanceThresholdSet,
    OrganisationOpened,
    PlanChanged,
    PriceChanged,
    PurchaseRefunded,
    PurchaseRefundReversed,
    TimeZoneChanged,
)
from domain.credits.hold_book import settlement_report
from domain.credits.holds import Hold, HoldRequest, check_hold, check_photos
from domain.credits.limits import check_credits, check_price, check_threshold
from domain.credits.lots import Lot
from domain.credits.organisation_state import OrganisationSnapshot
from domain.credits.refund_allocation import refund_charge
from domain.credits.usage import UsageReport
from domain.credits.usage_charge import record_charge
from domain.pricing.plans import Plan
from domain.pricing.rate_card import UsageType
from domain.shared.aggregate import EventEnvelope
from domain.shared.calendar import check_time_zone
from domain.shared.command_context import CommandContext
from domain.shared.money import Cost, Currency
from domain.shared.stream_keys import stream_id


class Organisation(DecisionSteps, first_events=(OrganisationOpened, OrganisationSnapshot)):
    """An organisation's credits, and every decision on them."""

    __slots__ = ()

    @classmethod
    def from_event(cls, envelope: EventEnvelope) -> Organisation:
        return evolve(None, envelope)

    @classmethod
    def open(
        cls,
        organisation_id: str,
        *,
        time_zone: str,
        currency: Currency,
        price_millionths: int,
        trial_credits: int,
        context: CommandContext,
    ) -> Organisation:
        """Open an organisation on the Trial plan, with trial credits unless they are 0.

        Raises:
            InvalidInput: unknown time zone, or a price or a number of credits out of range.
        """
        organisation = cls(stream_id(organisation_id))
        header = organisation._begin(context)
        check_price(price_millionths)
        zone = check_time_zone(time_zone)
        organisation._record(
            OrganisationOpened(*header, organisation_id, zone, currency, price_millionths, Plan.TRIAL)
        )
        if trial_credits:
            organisation.grant(trial_credits, GrantKind.TRIAL, "trial", context)
        return organisation

    def charge(self, report: UsageReport, rate_millionths: int, recorded_at: datetime) -> EventEnvelope:
        """Charge reported usage. A charge is never refused; the balance may go below zero.

        Holds that are past their end expire first. Photos that a settlement has charged cost nothing again.
        At a fractional rate the credits of a run are rounded up once: the charge is what all photos of the
        run cost, less what the run was charged so far.
        """
        if self.next_expiry <= recorded_at:
            self._expire_due_holds(recorded_at, report.message_id)
        return record_charge(self, report, rate_millionths, recorded_at)

    def refund(
        self,
        charge: EventEnvelope,
        credits_count: int | None,
        *,
        earlier_refunds: Sequence[ChargeRefunded],
        opened_lots: Sequence[Lot],
        reason: str,
        context: CommandContext,
    ) -> EventEnvelope:
        """Return credits of a charge, all that is left of it if no number is given.

        It needs all refunds of the charge so far, and the lots that the charge drew on (`lot_opened_by`).

        Raises:
            InvalidInput, RefundExceedsCharge: see `domain.credits.refund_allocation.refund_charge`.
        """
        header = self._begin(context)
        return self._record(
            refund_charge(
                header,
                charge,
                credits_count,
                earlier_refunds=earlier_refunds,
                opened_lots=opened_lots,
                overdraft=self.overdraft,
                number=self.version + 1,
                reason=reason,
            )
        )

    def grant(
        self, credits_count: int, kind: GrantKind, reason: str, context: CommandContext
    ) -> EventEnvelope:
        """Give credits. They pay an overdraft first.

        Raises:
            InvalidInput: credits outside 1 to `CREDITS_MAX`.
        """
        check_credits(credits_count)
        header = self._begin(context)
        overdraft_covered = min(credits_count, self.overdraft)
        return self._record(CreditsGranted(*header, credits_count, kind, reason, overdraft_covered))

    def purchase(
        self,
        credits_count: int,
        *,
        payment_id: str,
        order_id: str,
        gateway: str,
        unit_price_millionths: int,
        cost: Cost,
        currency: Currency,
        context: CommandContext,
    ) -> EventEnvelope:
        """Add credits that were paid for. The first purchase ends the trial.

        Raises:
            InvalidInput: credits outside 1 to `CREDITS_MAX`, or the price out of range.
            CurrencyMismatch: paid in another currency than the organisation's.
        """
        check_credits(credits_count)
        check_price(unit_price_millionths)
        if currency is not self.currency:
            raise CurrencyMismatch(f"the organisation pays in {self.currency}, not {currency}")
        header = self._begin(context)
        envelope = self._record(
            CreditsPurchased(
                *header,
                credits_count,
                payment_id,
                order_id,
                gateway,
                unit_price_millionths,
                cost.amount_minor,
                cost.tax_minor,
                currency,
                min(credits_count, self.overdraft),
            )
        )
        if self.plan is Plan.TRIAL:
            self.change_plan(Plan.PAY_AS_YOU_GO, None, context)
        return envelope

    def refundable(self, purchase: int) -> int:
        """Return how many credits of a purchase can be taken back; `purchase` is its version.

        These are the credits left in its lot, less those that open holds need.
        """
        left = sum(lot.remaining for lot in self.lots if lot.number == purchase)
        return min(left, max(self.available, 0))

    def refund_purchase(
        self,
        purchase: int,
        credits_count: int,
        *,
        payment_id: str,
        refund_id: str,
        cost: Cost,
        context: CommandContext,
    ) -> EventEnvelope:
        """Take unspent credits of a purchase back, so that nobody spends them while its money is refunded.

        Raises:
            RefundExceedsPurchase: more credits than are `refundable`.
        """
        header = self._begin(context)
        refundable = self.refundable(purchase)
        if credits_count > refundable:
            raise RefundExceedsPurchase(
                f"{refundable:,} of the credits bought can still be taken back", refundable=refundable
            )
        (lot,) = [lot for lot in self.lots if lot.number == purchase]
        taken = Lot(lot.kind, lot.number, lot.size, credits_count)
        amounts = (cost.amount_minor, cost.tax_minor, self.currency)
        return self._record(PurchaseRefunded(*header, purchase, taken, payment_id, refund_id, *amounts))

    def reverse_purchase_refund(self, refunded: PurchaseRefunded, context: CommandContext) -> EventEnvelope:
        """Return credits whose money was not refunded. They pay an overdraft first."""
        header = self._begin(context)
        covered = min(refunded.credits, self.overdraft)
        return self._record(
            PurchaseRefundReversed(
                *header, refunded.purchase, refunded.taken, refunded.payment_id, refunded.refund_id, covered
            )
        )

    def start_pro(self, expires_at: datetime, context: CommandContext) -> bool:
        """Start the Pro subscription. Return False, and change nothing, if it is not for sale now."""
        return self._change_plan_if(self.subscription.can_buy_pro(context.at), Plan.PRO, expires_at, context)

    def expire_pro(self, context: CommandContext) -> bool:
        """Change from Pro to Pay As You Go if Pro has reached its end, and tell whether it has."""
        return self._change_plan_if(self.subscription.is_over(context.at), Plan.PAY_AS_YOU_GO, None, context)

    def resume_pro(self, expires_at: datetime, context: CommandContext) -> bool:
        """Resume a subscription that was ended early, and tell whether that was possible."""
        return self._change_plan_if(
            self.subscription.can_resume(expires_at, context.at), Plan.PRO, expires_at, context
        )

    def change_plan(self, plan: Plan, expires_at: datetime | None, context: CommandContext) -> EventEnvelope:
        """Change the plan, with or without an end."""
        return self._record(PlanChanged(*self._begin(context), plan, expires_at))

    def _change_plan_if(
        self, possible: bool, plan: Plan, expires_at: datetime | None, context: CommandContext
    ) -> bool:
        if possible:
            self.change_plan(plan, expires_at, context)
        return possible

    def change_price(self, price_millionths: int, context: CommandContext) -> EventEnvelope:
        """Set the price of one credit, in millionths of its currency. Raises InvalidInput: out of range."""
        check_price(price_millionths)
        return self._record(PriceChanged(*self._begin(context), price_millionths))

    def change_time_zone(self, time_zone: str, context: CommandContext) -> EventEnvelope:
        """Set the zone of the days and months of later charges. Raises InvalidInput: unknown zone."""
        return self._record(TimeZoneChanged(*self._begin(context), check_time_zone(time_zone)))

    def set_low_balance_threshold(self, threshold: int, context: CommandContext) -> EventEnvelope:
        """Record an event whenever available credits fall below the threshold; 0: never.

        Raises:
            InvalidInput: outside 0 to `CREDITS_MAX`.
        """
        check_threshold(threshold)
        return self._record(LowBalanceThresholdSet(*self._begin(context), threshold))

    def record_audit_event(self, event: AuditEvent) -> EventEnvelope:
        """Record who changed something other than credits."""
        self._begin(CommandContext(event.recorded_at, event.actor, event.cause))
        return self._record(event)

    def switch_on_auto_top_up(
        self, terms: TopUpTerms, *, payment_id: str, amount_minor_max: int, context: CommandContext
    ) -> EventEnvelope:
        """Switch auto top-up on: it charges the card of a payment, at most so much each time.

        Raises:
            InvalidInput: terms out of range.
        """
        terms.check()
        header = self._begin(context)
        wanted = (terms.credits, terms.threshold, terms.per_day)
        return self._record(AutoTopUpSwitchedOn(*header, *wanted, payment_id, amount_minor_max))

    def change_auto_top_up(
        self, terms: TopUpTerms, total_minor: int, context: CommandContext
    ) -> EventEnvelope:
        """Change the terms of auto top-up; `total_minor` is what a top-up on them would cost now.

        Raises:
            InvalidInput: terms out of range, or a total above the agreed maximum.
            AutoTopUpNotOn: it is not on.
        """
        terms.check()
        require_on(self.auto_top_up).check_total(total_minor)
        header = self._begin(context)
        return self._record(AutoTopUpChanged(*header, terms.credits, terms.threshold, terms.per_day))

    def switch_off_auto_top_up(self, reason: OffReason, context: CommandContext) -> EventEnvelope:
        """Switch auto top-up off. Raises AutoTopUpNotOn: it is not on."""
        require_on(self.auto_top_up)
        return self._record(AutoTopUpSwitchedOff(*self._begin(context), reason))

    def start_top_up(
        self, payment_id: str, total_minor: int, last: LastTopUpStatus, context: CommandContext
    ) -> AutoTopUpBegun | None:
        """Start a top-up if credits are low and the limits allow it; record once a day why not.

        `payment_id` and `total_minor` are those of its payment; `last` tells how the top-up before ended.
        """
        header = self._begin(context)
        state = self.auto_top_up
        if state is None or not state.is_needed(self.available):
            return None
        event = state.start(header, payment_id, self.time_zone, last, total_minor)
        if event is not None:
            self._record(event)
        return event if isinstance(event, AutoTopUpBegun) else None

    def complete_top_up(self, context: CommandContext) -> None:
        """Record that a top-up was paid. If credits are still low, no other one starts on this day."""
        header = self._begin(context)
        state = self.auto_top_up
        if state is not None and state.is_needed(self.available):
            held = state.complete(header, self.time_zone)
            if held is not None:
                self._record(held)

    def place_hold(
        self,
        wanted: HoldRequest,
        expires_at: datetime,
        context: CommandContext,
        *,
        reported: Mapping[UsageType, int],
    ) -> Hold:
        """Set credits aside for a run: all that it requests, or as many as are available.

        The same request again returns the same hold while it is open. `reported` are the photos of each
        type that the run was charged for so far (`ChargeHistory.photos_reported`): its settlement does not
        charge them again.

        Raises:
            InvalidInput: credits outside 0 to `CREDITS_MAX`, or an end not within a day from now.
            HoldConflict, InsufficientCredits: see `HoldBook.place`.
        """
        check_hold(wanted, expires_at - context.at)
        header = self._begin(context)
        available, version = self.available, self.version + 1
        placed = self.hold_book.place(
            header, wanted, expires_at, version=version, available=available, reported=reported
        )
        if placed is not None:
            self._record(placed)
        return self.holds[wanted.run_id]

    def settle_hold(
        self,
        hold_id: str,
        photos: int,
        *,
        usage_type: UsageType,
        ai_search: bool,
        rate_millionths: int,
        context: CommandContext,
    ) -> HoldSettled:
        """End a run: charge the photos that no message has reported yet, and free what is left.

        Fewer photos than were reported already charge nothing and return nothing.

        Raises:
            InvalidInput: photos out of range.
            HoldNotFound: no open hold has this id.
        """
        check_photos(photos)
        header = self._begin(context)
        hold = self.hold_book.find(hold_id)
        unreported = max(0, photos - hold.photos.get(usage_type, 0))
        if unreported:
            report = settlement_report(
                hold, self.organisation_id, context.at, usage_type, unreported, ai_search=ai_search
            )
            record_charge(self, report, rate_millionths, context.at)
        settled = self.hold_book.settle(header, hold_id, usage_type, photos, unreported)
        self._record(settled)
        return settled

    def release_hold(self, hold_id: str, context: CommandContext) -> HoldReleased:
        """Free a hold, or what is left of it. Raises HoldNotFound: no open hold has this id."""
        header = self._begin(context)
        released = self.hold_book.release(header, hold_id)
        self._record(released)
        return released

    def expire_holds(self, context: CommandContext) -> None:
        """Expire the holds that are past their end, and do nothing else."""
        self._begin(context)


def evolve(organisation: Organisation | None, envelope: EventEnvelope) -> Organisation:
    """Return the organisation after an event or a snapshot; it is None before the first event."""
    if isinstance(envelope.event, OrganisationSnapshot):
        return Organisation.from_snapshot(envelope)
    return envelope.mutate(organisation or Organisation(envelope.originator_id))
