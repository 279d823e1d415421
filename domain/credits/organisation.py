"""The Organisation aggregate: its state and its decisions.

An event is an envelope (`domain.shared.aggregate.EventEnvelope`: stream, version) around a fact (`domain.credits.events`). A decision
checks, builds a fact, and applies it at once through the same `apply` that replay uses.

This module is longer than others because an aggregate is read as a whole: decisions and state.

Invariants: sum of lots - overdraft = balance = sum of the credits of all events; available = balance - open
holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import ClassVar, Final
from uuid import UUID

import msgspec

from domain.credits.audit_events import AuditEvent
from domain.credits.auto_top_up import (
    AutoTopUp,
    HeldReason,
    HoldTopUp,
    LastTopUpStatus,
    OffReason,
    StartTopUp,
    SwitchOffTopUp,
    TopUpTerms,
)
from domain.credits.auto_top_up_events import (
    AutoTopUpBegun,
    AutoTopUpChanged,
    AutoTopUpHeld,
    AutoTopUpSwitchedOff,
    AutoTopUpSwitchedOn,
)
from domain.credits.errors import (
    AutoTopUpNotOn,
    CurrencyMismatch,
    HoldConflict,
    HoldNotFound,
    InsufficientCredits,
    RefundExceedsCharge,
    RefundExceedsPurchase,
)
from domain.credits.events import (
    BalanceWentLow,
    ChargeRefunded,
    CreditsExhausted,
    CreditsGranted,
    CreditsPurchased,
    CreditsReplenished,
    GrantKind,
    HoldExpired,
    HoldPlaced,
    HoldReleased,
    HoldSettled,
    LowBalanceThresholdSet,
    OrganisationOpened,
    PlanChanged,
    PriceChanged,
    PurchaseRefunded,
    PurchaseRefundReversed,
    TimeZoneChanged,
    UsageCharged,
)
from domain.credits.holds import (
    HOLD_DURATION_MAX,
    HOLD_PREFIX,
    Hold,
    HoldMode,
    HoldRequest,
    Settlement,
    check_photos,
)
from domain.credits.limits import CREDITS_MAX, SETTLEMENT_SOURCE, _check_credits, _check_price
from domain.credits.lots import Lot, LotAllocation, LotKind, draw, plan_draws, restore
from domain.credits.refund_allocation import _returned_lots, _reverse_draws
from domain.credits.usage import Usage, UsageReport, User
from domain.pricing.plans import Plan
from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS, UsageType, credits_for
from domain.shared.aggregate import Aggregate, EventEnvelope
from domain.shared.calendar import check_time_zone, local_day
from domain.shared.command_context import CommandContext
from domain.shared.errors import InvalidInput, InvariantViolation
from domain.shared.money import Cost, Currency
from domain.shared.stream_keys import stream_id

RUN_TOTAL_RETENTION: Final = timedelta(days=90)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class RunTotal(msgspec.Struct, array_like=True):
    """Photos and credits of a run so far at one fractional rate."""

    photos: int
    credits: int
    last_recorded_at: datetime


RunKey = tuple[str, UsageType, int]
"""Run id, usage type, rate in millionths: what is rounded up together."""


class OrganisationSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """The whole state of an organisation at a version: replay may start here."""

    recorded_at: datetime
    organisation_id: str
    time_zone: str
    currency: Currency
    price_millionths: int
    plan: Plan
    plan_expires_at: datetime | None
    lots: list[Lot]
    overdraft: int
    run_totals: list[tuple[RunKey, RunTotal]]
    holds: list[Hold] = []
    settlements: list[Settlement] = []
    low_balance_threshold: int = 0
    auto_top_up: AutoTopUp | None = None

    actor: ClassVar[str | None] = None
    cause: ClassVar[str] = ""
    balance_delta: ClassVar[int] = 0

    def restore(self, version: int) -> Organisation:
        """Return the organisation as it stood at the version."""
        organisation = Organisation(stream_id(self.organisation_id))
        organisation.version = version
        organisation.last_recorded_at = self.recorded_at
        organisation.organisation_id = self.organisation_id
        organisation.time_zone = self.time_zone
        organisation.currency = self.currency
        organisation.price_millionths = self.price_millionths
        organisation.plan = self.plan
        organisation.plan_expires_at = self.plan_expires_at
        organisation.lots = _copy_lots(self.lots)
        organisation.overdraft = self.overdraft
        organisation.balance = sum(lot.remaining for lot in self.lots) - self.overdraft
        organisation.run_totals = {
            key: RunTotal(total.photos, total.credits, total.last_recorded_at)
            for key, total in self.run_totals
        }
        for hold in self.holds:
            organisation.open_hold(hold)
        for settlement in self.settlements:
            organisation.open_settlement(settlement)
        organisation.low_balance_threshold = self.low_balance_threshold
        organisation.auto_top_up = self.auto_top_up
        return organisation

    def apply(self, organisation: Organisation) -> None:
        raise InvariantViolation("a snapshot is not part of a history")


class Organisation(Aggregate, begins_with=(OrganisationOpened, OrganisationSnapshot)):
    """An organisation's credits. Small whatever its history: only lots that are not empty are kept."""

    __slots__ = (
        "_available_before",
        "_next_expiry",
        "auto_top_up",
        "balance",
        "currency",
        "holds",
        "lots",
        "low_balance_threshold",
        "on_hold",
        "organisation_id",
        "overdraft",
        "plan",
        "plan_expires_at",
        "price_millionths",
        "run_totals",
        "settlements",
        "time_zone",
    )

    def __init__(self, stream: UUID) -> None:
        super().__init__(stream)
        self.organisation_id = ""
        self.time_zone = "UTC"
        self.currency = Currency.USD
        self.price_millionths = 0
        self.plan = Plan.TRIAL
        self.plan_expires_at: datetime | None = None
        self.lots: list[Lot] = []
        self.overdraft = 0
        self.balance = 0
        self.run_totals: dict[RunKey, RunTotal] = {}
        self.holds: dict[str, Hold] = {}
        self.on_hold = 0
        self.settlements: dict[tuple[str, UsageType], Settlement] = {}
        self.low_balance_threshold = 0
        self.auto_top_up: AutoTopUp | None = None
        self._available_before = 0
        self._next_expiry = _NEVER

    @classmethod
    def from_event(cls, event: EventEnvelope) -> Organisation:
        return evolve(None, event)

    # ----------------------------------------------------------------- decisions

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
        _check_price(price_millionths)
        opened = OrganisationOpened(
            context.at,
            context.actor,
            context.cause,
            organisation_id,
            check_time_zone(time_zone),
            currency,
            price_millionths,
            Plan.TRIAL,
        )
        organisation._record(opened)
        if trial_credits:
            organisation.grant(trial_credits, GrantKind.TRIAL, "trial", context)
        return organisation

    def grant(
        self, credits_count: int, kind: GrantKind, reason: str, context: CommandContext
    ) -> EventEnvelope:
        """Give credits. They pay an overdraft first.

        Raises:
            InvalidInput: credits outside 1 to `CREDITS_MAX`.
        """
        _check_credits(credits_count)
        self._start_decision(context)
        overdraft_covered = min(credits_count, self.overdraft)
        return self._record(
            CreditsGranted(
                context.at, context.actor, context.cause, credits_count, kind, reason, overdraft_covered
            )
        )

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
        """Record credits that were paid for. The first purchase ends the trial.

        Raises:
            InvalidInput: credits outside 1 to `CREDITS_MAX`, or the price out of range.
            CurrencyMismatch: paid in another currency than the organisation's.
        """
        _check_credits(credits_count)
        _check_price(unit_price_millionths)
        if currency is not self.currency:
            raise CurrencyMismatch(f"the organisation pays in {self.currency}, not {currency}")
        self._start_decision(context)
        envelope = self._record(
            CreditsPurchased(
                context.at,
                context.actor,
                context.cause,
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

    def charge(self, report: UsageReport, rate_millionths: int, recorded_at: datetime) -> EventEnvelope:
        """Charge reported usage. A charge is a fact: it is never refused, the balance may go below zero.

        Holds past their time lapse before it. Photos that a settlement charged ahead cost nothing again.
        A fractional rate rounds up once per run: the charge is what the photos of the run so far cost
        less what the run was charged so far.
        """
        if not self._pending:
            self._available_before = self.balance - self.on_hold
        if self._next_expiry <= recorded_at:
            self._expire_due_holds(recorded_at, report.message_id)
        return self._record_charge(report, rate_millionths, recorded_at)

    def _record_charge(
        self, report: UsageReport, rate_millionths: int, recorded_at: datetime
    ) -> EventEnvelope:
        """Do what `UsageCharged.apply` does in one step; a property test holds the two equal."""
        # First of all: nothing may fail once the state has begun to change.
        usage = report.usage
        day = local_day(self.time_zone, report.occurred_at)
        settled = from_hold = 0
        photos = usage.photos
        if self.settlements:
            settled = self._photos_already_settled(usage)
            photos -= settled
        if rate_millionths % WHOLE_CREDIT_MILLIONTHS:
            credits_count = self._fractional_rate_credits(usage, photos, rate_millionths)
        else:
            credits_count = photos * (rate_millionths // WHOLE_CREDIT_MILLIONTHS)
        if self.holds:
            from_hold = self._credits_from_hold(usage, credits_count)
        if recorded_at < self.last_recorded_at:
            recorded_at = self.last_recorded_at
        else:
            self.last_recorded_at = recorded_at
        lots = self.lots
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
            self.overdraft += overdraft
        self.balance -= credits_count
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
        if rate_millionths % WHOLE_CREDIT_MILLIONTHS:
            self.add_to_run_total(event)
        if self.holds or settled:
            self.apply_charge_to_hold(event)
        self.version += 1
        envelope = EventEnvelope(self.id, self.version, event)
        self._pending.append(envelope)
        return envelope

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
        """Return credits of a charge, all that is left of it unless a number is given.

        The last drawn portion is undone first: the overdraft, then the lots in reverse spend order. An
        open overdraft is paid first. Returned credits reopen their lot at its original rank; a refunded
        overdraft that is paid already has no lot of its own left and opens a free one.

        Args:
            charge: the charge's event, from this organisation's history.
            earlier_refunds: all refunds of the charge so far.
            opened_lots: the charge's lots as they were opened (`lot_opened_by`).

        Raises:
            InvalidInput: credits below 1.
            RefundExceedsCharge: more credits than are left of the charge, or nothing is left.
        """
        event = charge.event
        if not isinstance(event, UsageCharged):
            raise InvariantViolation(f"event {charge.originator_version} is not a charge")
        refunded = sum(refund.credits for refund in earlier_refunds)
        left = event.credits - refunded
        if credits_count is None:
            credits_count = left
        elif credits_count < 1:
            raise InvalidInput("credits", "a refund returns at least 1 credit")
        if credits_count > left or left == 0:
            raise RefundExceedsCharge(
                f"the charge has {left} of its {event.credits} credits left to refund",
                charged=event.credits,
                refundable=left,
            )
        self._start_decision(context)
        undone = _reverse_draws(event, skip=refunded, credits_count=credits_count)
        overdraft_covered = min(credits_count, self.overdraft)
        lots = {lot.number: lot for lot in opened_lots}
        return self._record(
            ChargeRefunded(
                context.at,
                context.actor,
                context.cause,
                charge.originator_version,
                credits_count,
                _returned_lots(undone, overdraft_covered, lots, new_lot=self.version + 1),
                overdraft_covered,
                reason,
                event.run_id,
                event.event_id,
                event.event_name,
            )
        )

    def refundable(self, purchase: int) -> int:
        """Return how many credits of a purchase, named by its version, can be taken back.

        These are the credits left of its lot, except those that open holds count on.
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
        """Take back unspent credits of a purchase, so that they cannot be spent while its money goes back.

        Raises:
            RefundExceedsPurchase: more credits than are left of it, or than no hold counts on.
        """
        self._start_decision(context)
        refundable = self.refundable(purchase)
        if credits_count > refundable:
            raise RefundExceedsPurchase(
                f"{refundable:,} of the credits bought can still be taken back", refundable=refundable
            )
        (lot,) = [lot for lot in self.lots if lot.number == purchase]
        return self._record(
            PurchaseRefunded(
                context.at,
                context.actor,
                context.cause,
                purchase,
                Lot(lot.kind, lot.number, lot.size, credits_count),
                payment_id,
                refund_id,
                cost.amount_minor,
                cost.tax_minor,
                self.currency,
            )
        )

    def reverse_purchase_refund(self, refunded: PurchaseRefunded, context: CommandContext) -> EventEnvelope:
        """Give credits back whose money did not go back. They pay an overdraft first."""
        self._start_decision(context)
        return self._record(
            PurchaseRefundReversed(
                context.at,
                context.actor,
                context.cause,
                refunded.purchase,
                refunded.taken,
                refunded.payment_id,
                refunded.refund_id,
                min(refunded.credits, self.overdraft),
            )
        )

    def start_pro(self, expires_at: datetime, context: CommandContext) -> bool:
        """Begin the Pro subscription; tell False, and change nothing, where it is not for sale now."""
        if not self.can_buy_pro(context.at):
            return False
        self.change_plan(Plan.PRO, expires_at, context)
        return True

    def can_buy_pro(self, now: datetime) -> bool:
        """Tell whether the Pro subscription is for sale: not while there is one, nor beside an agreement."""
        if self.plan is Plan.PRO:
            return self.plan_expires_at is not None and self.plan_expires_at <= now
        return self.plan is not Plan.ENTERPRISE

    def expire_pro(self, context: CommandContext) -> bool:
        """Fall back to Pay As You Go if the subscription's time is over, and tell whether it is."""
        if self.plan is not Plan.PRO or self.plan_expires_at is None or self.plan_expires_at > context.at:
            return False
        self.change_plan(Plan.PAY_AS_YOU_GO, None, context)
        return True

    def is_subscription_ending_at(self, expires_at: datetime) -> bool:
        """Tell whether the subscription that runs is the one with this end."""
        return self.plan is Plan.PRO and self.plan_expires_at == expires_at

    def resume_pro(self, expires_at: datetime, context: CommandContext) -> None:
        """Bring back a subscription that was ended, unless its time is over or another plan came since."""
        if self.plan is Plan.PAY_AS_YOU_GO and expires_at > context.at:
            self.change_plan(Plan.PRO, expires_at, context)

    def change_price(self, price_millionths: int, context: CommandContext) -> EventEnvelope:
        """Set the price of one credit, in millionths of the currency unit.

        Raises:
            InvalidInput: the price is out of range.
        """
        _check_price(price_millionths)
        self._start_decision(context)
        return self._record(PriceChanged(context.at, context.actor, context.cause, price_millionths))

    def change_plan(self, plan: Plan, expires_at: datetime | None, context: CommandContext) -> EventEnvelope:
        """Move to another plan, with or without an end."""
        self._start_decision(context)
        return self._record(PlanChanged(context.at, context.actor, context.cause, plan, expires_at))

    def change_time_zone(self, time_zone: str, context: CommandContext) -> EventEnvelope:
        """Count later charges in another zone's days and months.

        Raises:
            InvalidInput: unknown time zone.
        """
        check_time_zone(time_zone)
        self._start_decision(context)
        return self._record(TimeZoneChanged(context.at, context.actor, context.cause, time_zone))

    def set_low_balance_threshold(self, threshold: int, context: CommandContext) -> EventEnvelope:
        """Tell when less than this many credits are available; 0: never.

        Raises:
            InvalidInput: outside 0 to `CREDITS_MAX`.
        """
        if not 0 <= threshold <= CREDITS_MAX:
            raise InvalidInput("threshold", f"the threshold must be between 0 and {CREDITS_MAX:,}")
        self._start_decision(context)
        return self._record(LowBalanceThresholdSet(context.at, context.actor, context.cause, threshold))

    def record_audit_event(self, event: AuditEvent) -> EventEnvelope:
        """Put on record who changed something around the credits."""
        self._start_decision(CommandContext(event.recorded_at, event.actor, event.cause))
        return self._record(event)

    # --------------------------------------------------------------- auto top-up

    def switch_on_auto_top_up(
        self, terms: TopUpTerms, *, payment_id: str, amount_minor_max: int, context: CommandContext
    ) -> EventEnvelope:
        """Buy credits by itself from now on, with the card of a payment, for at most so much each time.

        Raises:
            InvalidInput: terms out of range.
        """
        terms.check()
        self._start_decision(context)
        return self._record(
            AutoTopUpSwitchedOn(
                context.at,
                context.actor,
                context.cause,
                terms.credits,
                terms.threshold,
                terms.per_day,
                payment_id,
                amount_minor_max,
            )
        )

    def change_auto_top_up(
        self, terms: TopUpTerms, total_minor: int, context: CommandContext
    ) -> EventEnvelope:
        """Change what is bought by itself, and when; `total_minor` is what that would cost now.

        Raises:
            InvalidInput: terms out of range, or more credits than was agreed to pay for.
            AutoTopUpNotOn: it is not on.
        """
        terms.check()
        state = self._auto_top_up()
        if total_minor > state.amount_minor_max:
            raise InvalidInput(
                "credits", "these cost more than was agreed to: switch auto top-up on anew for them"
            )
        self._start_decision(context)
        return self._record(
            AutoTopUpChanged(
                context.at, context.actor, context.cause, terms.credits, terms.threshold, terms.per_day
            )
        )

    def switch_off_auto_top_up(self, reason: OffReason, context: CommandContext) -> EventEnvelope:
        """Buy nothing by itself any more.

        Raises:
            AutoTopUpNotOn: it is not on.
        """
        self._auto_top_up()
        self._start_decision(context)
        return self._record(AutoTopUpSwitchedOff(context.at, context.actor, context.cause, reason))

    def start_top_up(
        self, payment_id: str, total_minor: int, last: LastTopUpStatus, context: CommandContext
    ) -> AutoTopUpBegun | None:
        """Begin to buy credits if they are low and the brake allows it; say once why not.

        Args:
            payment_id: of the payment to be asked for.
            total_minor: what it would be of.
            last: what has become of the top-up before.
        """
        self._start_decision(context)
        state = self.auto_top_up
        if state is None or not state.is_on or self.available >= state.terms.threshold:
            return None
        head = (context.at, context.actor, context.cause)
        match state.decide(context.at, self.time_zone, last, total_minor):
            case StartTopUp(day, number, failures):
                begun = AutoTopUpBegun(*head, payment_id, state.terms.credits, day, number, failures)
                self._record(begun)
                return begun
            case HoldTopUp(why, day):
                self._record(AutoTopUpHeld(*head, why, day, state.terms.per_day))
            case SwitchOffTopUp(reason):
                self._record(AutoTopUpSwitchedOff(*head, reason))
        return None

    def complete_top_up(self, context: CommandContext) -> None:
        """Take in that a top-up is paid: where it was too small, no other begins on this day."""
        state = self.auto_top_up
        if state is None or not state.is_on or self.available >= state.terms.threshold:
            return
        today = local_day(self.time_zone, context.at)
        if state.held_on != today:
            self._record(
                AutoTopUpHeld(
                    context.at, context.actor, context.cause, HeldReason.TOO_SMALL, today, state.terms.per_day
                )
            )

    @property
    def has_auto_top_up(self) -> bool:
        """Whether credits are bought by themselves."""
        return self.auto_top_up is not None and self.auto_top_up.is_on

    def _auto_top_up(self) -> AutoTopUp:
        if self.auto_top_up is None or not self.auto_top_up.is_on:
            raise AutoTopUpNotOn
        return self.auto_top_up

    # --------------------------------------------------------------------- holds

    def place_hold(
        self,
        wanted: HoldRequest,
        expires_at: datetime,
        context: CommandContext,
        *,
        reported: Mapping[UsageType, int],
    ) -> Hold:
        """Set credits aside for a run: all it asks for, or as many as there are.

        Asking again for the same, while the hold is open, returns it as it is.

        Args:
            wanted: what the run asks for.
            expires_at: when the hold lapses.
            request: who asks, and when.
            reported: photos of each type that the run was charged so far (`EventStore.photos_reported`); its
                settlement does not charge them again.

        Raises:
            InvalidInput: credits outside 0 to `CREDITS_MAX`, or an end not within a day from now.
            HoldConflict: the run has an open hold that was asked for differently.
            InsufficientCredits: less is available than asked for, or nothing at all.
        """
        if not 0 <= wanted.credits <= CREDITS_MAX:
            raise InvalidInput("credits", f"credits must be between 0 and {CREDITS_MAX:,}")
        if not timedelta(0) < expires_at - context.at <= HOLD_DURATION_MAX:
            raise InvalidInput("expires_in_s", "a hold lasts between a second and a day")
        self._start_decision(context)
        held = self.holds.get(wanted.run_id)
        if held is not None:
            if held.request != wanted:
                raise HoldConflict(hold_id=held.hold_id)
            return held
        available = max(self.available, 0)
        if wanted.credits > available and (wanted.mode is HoldMode.ALL_OR_NOTHING or available == 0):
            raise InsufficientCredits(
                f"{wanted.credits:,} credits were asked for and {available:,} are available",
                available=self.available,
                requested=wanted.credits,
            )
        self._record(
            HoldPlaced(
                context.at,
                context.actor,
                context.cause,
                f"{HOLD_PREFIX}{self.version + 1}",
                wanted,
                min(wanted.credits, available),
                expires_at,
                dict(reported),
            )
        )
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

        Fewer photos than were reported already charge nothing and take nothing back.

        Raises:
            InvalidInput: photos out of range.
            HoldNotFound: no open hold has this id.
        """
        check_photos(photos)
        self._start_decision(context)
        hold = self.find_open_hold(hold_id)
        unreported_photos = max(0, photos - hold.photos.get(usage_type, 0))
        if unreported_photos:
            wanted = hold.request
            self._record_charge(
                UsageReport.of(
                    SETTLEMENT_SOURCE,
                    hold_id,
                    self.organisation_id,
                    context.at,
                    Usage(
                        wanted.run_id,
                        usage_type,
                        unreported_photos,
                        ai_search,
                        hold.photo_event,
                        None if wanted.user is None else User(wanted.user),
                        hold_id,
                    ),
                ),
                rate_millionths,
                context.at,
            )
        settled = HoldSettled(
            context.at,
            context.actor,
            context.cause,
            hold_id,
            hold.request.run_id,
            usage_type,
            photos,
            unreported_photos,
            self.find_open_hold(hold_id).remaining,
        )
        self._record(settled)
        return settled

    def release_hold(self, hold_id: str, context: CommandContext) -> HoldReleased:
        """Give a hold back unused, or what is left of it.

        Raises:
            HoldNotFound: no open hold has this id.
        """
        self._start_decision(context)
        hold = self.find_open_hold(hold_id)
        released = HoldReleased(
            context.at, context.actor, context.cause, hold_id, hold.request.run_id, hold.remaining
        )
        self._record(released)
        return released

    def expire_holds(self, context: CommandContext) -> None:
        """Free the holds whose time is over, and nothing else."""
        self._start_decision(context)

    # ------------------------------------------------------------ state and the library's protocols

    @property
    def available(self) -> int:
        """Credits a new run may use; processing is paused while this is 0 or less."""
        return self.balance - self.on_hold

    def collect_events(self) -> Sequence[EventEnvelope]:
        """Hand over the events decided since the last call, and what they crossed on the way.

        Of several charges at once only where they end counts, so a crossing is marked once.
        """
        self._record_threshold_crossings()
        return super().collect_events()

    def fork(self) -> Organisation:
        """Return a copy to decide on: what becomes of it leaves this one untouched."""
        copy = Organisation.__new__(Organisation)
        copy.id = self.id
        copy.version = self.version
        copy.last_recorded_at = self.last_recorded_at
        copy.organisation_id = self.organisation_id
        copy.time_zone = self.time_zone
        copy.currency = self.currency
        copy.price_millionths = self.price_millionths
        copy.plan = self.plan
        copy.plan_expires_at = self.plan_expires_at
        copy.lots = _copy_lots(self.lots)
        copy.overdraft = self.overdraft
        copy.balance = self.balance
        # Totals are replaced, never changed in place, so a shallow copy is enough.
        copy.run_totals = self.run_totals.copy() if self.run_totals else {}
        # Holds and settlements are replaced too.
        copy.holds = self.holds.copy() if self.holds else {}
        copy.on_hold = self.on_hold
        copy.settlements = self.settlements.copy() if self.settlements else {}
        copy.low_balance_threshold = self.low_balance_threshold
        copy.auto_top_up = self.auto_top_up
        copy._pending = []
        copy._available_before = 0
        copy._next_expiry = self._next_expiry
        return copy

    def snapshot(self) -> EventEnvelope:
        """Return the state as an event at the current version, for the snapshot store."""
        return EventEnvelope(
            self.id,
            self.version,
            OrganisationSnapshot(
                self.last_recorded_at,
                self.organisation_id,
                self.time_zone,
                self.currency,
                self.price_millionths,
                self.plan,
                self.plan_expires_at,
                _copy_lots(self.lots),
                self.overdraft,
                list(self.run_totals.items()),
                list(self.holds.values()),
                list(self.settlements.values()),
                self.low_balance_threshold,
                self.auto_top_up,
            ),
        )

    def check_invariants(self) -> None:
        """Check the books.

        Raises:
            InvariantViolation: lots less overdraft are not the balance, or a lot is out of its bounds.
        """
        if sum(lot.remaining for lot in self.lots) - self.overdraft != self.balance:
            raise InvariantViolation(f"lots less overdraft are not the balance of {self.organisation_id}")
        if any(not 0 < lot.remaining <= lot.size for lot in self.lots):
            raise InvariantViolation(f"a lot of {self.organisation_id} is out of its bounds")
        if self.overdraft < 0 or (self.overdraft and self.lots):
            raise InvariantViolation(f"{self.organisation_id} has an overdraft beside credits to pay it")
        if sum(hold.remaining for hold in self.holds.values()) != self.on_hold:
            raise InvariantViolation(f"open holds of {self.organisation_id} are not what it has on hold")
        if any(not 0 <= hold.remaining <= hold.size for hold in self.holds.values()):
            raise InvariantViolation(f"a hold of {self.organisation_id} is out of its bounds")

    def open_lot(self, kind: LotKind, credits_count: int, overdraft_covered: int) -> None:
        """Take in an addition at the current version: pay the overdraft, keep the rest as a lot."""
        self.overdraft -= overdraft_covered
        self.balance += credits_count
        if credits_count > overdraft_covered:
            size = credits_count - overdraft_covered
            restore(self.lots, Lot(kind, self.version, size, size))

    def add_to_run_total(self, charged: UsageCharged) -> None:
        """Keep what a run of a fractional rate has used, and forget runs not heard of for long."""
        key = (charged.run_id, charged.usage_type, charged.rate_millionths)
        before = self.run_totals.pop(key, None)
        if before is None:
            self._drop_old_run_totals(charged.recorded_at)
            before = RunTotal(0, 0, charged.recorded_at)
        self.run_totals[key] = RunTotal(
            before.photos + charged.new_photos, before.credits + charged.credits, charged.recorded_at
        )

    def open_hold(self, hold: Hold) -> None:
        """Set credits aside."""
        self.holds[hold.request.run_id] = hold
        self.on_hold += hold.remaining
        self._next_expiry = min(self._next_expiry, hold.expires_at)

    def close_hold(self, run_id: str) -> None:
        """Free what is left of a run's hold."""
        self.on_hold -= self.holds.pop(run_id).remaining
        self._next_expiry = min((hold.expires_at for hold in self.holds.values()), default=_NEVER)

    def open_settlement(self, settlement: Settlement) -> None:
        """Remember photos that were charged ahead of their messages, and forget what is old."""
        oldest = settlement.settled_at - RUN_TOTAL_RETENTION
        self.settlements = {key: old for key, old in self.settlements.items() if old.settled_at >= oldest}
        self.settlements[settlement.run_id, settlement.usage_type] = settlement

    def apply_charge_to_hold(self, charged: UsageCharged) -> None:
        """Count a charge on its run's hold, or on what the run's settlement charged ahead."""
        if charged.settled:
            key = (charged.run_id, charged.usage_type)
            before = self.settlements[key]
            if before.photos == charged.settled:
                del self.settlements[key]
            else:
                self.settlements[key] = msgspec.structs.replace(
                    before, photos=before.photos - charged.settled
                )
        hold = self.holds.get(charged.run_id)
        if hold is not None:
            photos = hold.photos.get(charged.usage_type, 0) + charged.photos
            self.on_hold -= charged.from_hold
            self.holds[charged.run_id] = msgspec.structs.replace(
                hold,
                remaining=hold.remaining - charged.from_hold,
                photos={**hold.photos, charged.usage_type: photos},
                event_id=charged.event_id or hold.event_id,
                event_name=charged.event_name if charged.event_id else hold.event_name,
            )

    def _photos_already_settled(self, usage: Usage) -> int:
        """Return how many photos of a message its run's settlement has charged."""
        settlement = self.settlements.get((usage.run_id, usage.usage_type))
        return 0 if settlement is None else min(usage.photos, settlement.photos)

    def _credits_from_hold(self, usage: Usage, credits_count: int) -> int:
        """Return how many credits of a charge come from the hold it names: it must be its run's."""
        hold = self.holds.get(usage.run_id)
        if hold is None or hold.hold_id != usage.hold_id:
            return 0
        return min(hold.remaining, credits_count)

    def find_open_hold(self, hold_id: str) -> Hold:
        """Return an open hold.

        Raises:
            HoldNotFound: no open hold has this id.
        """
        for hold in self.holds.values():
            if hold.hold_id == hold_id:
                return hold
        raise HoldNotFound(hold_id=hold_id)

    def _start_decision(self, context: CommandContext) -> None:
        """Begin a decision: holds past their time lapse first."""
        if not self._pending:
            self._available_before = self.available
        self._expire_due_holds(context.at, context.cause)

    def _expire_due_holds(self, now: datetime, cause: str) -> None:
        if self._next_expiry > now:
            return
        for hold in list(self.holds.values()):
            if hold.expires_at <= now:
                self._record(HoldExpired(now, None, cause, hold.hold_id, hold.request.run_id, hold.remaining))

    def _record_threshold_crossings(self) -> None:
        if not self._pending or self._pending[0].originator_version == 1:
            return  # what it opens with is no crossing
        before, after, threshold = self._available_before, self.available, self.low_balance_threshold
        last = self._pending[-1].event
        if after < threshold <= before and after > 0:
            self._record(BalanceWentLow(last.recorded_at, last.actor, last.cause, after, threshold))
        if after <= 0 < before:
            self._record(CreditsExhausted(last.recorded_at, last.actor, last.cause, after))
        if before <= 0 < after:
            self._record(CreditsReplenished(last.recorded_at, last.actor, last.cause, after))

    def _drop_old_run_totals(self, now: datetime) -> None:
        # Each charge moves its run to the end, so the old ones stand in front.
        oldest = now - RUN_TOTAL_RETENTION
        old = takewhile(lambda key: self.run_totals[key].last_recorded_at < oldest, self.run_totals)
        for key in list(old):
            del self.run_totals[key]

    def _fractional_rate_credits(self, usage: Usage, photos: int, rate_millionths: int) -> int:
        so_far = self.run_totals.get((usage.run_id, usage.usage_type, rate_millionths))
        if so_far is None:
            return credits_for(photos, rate_millionths)
        return credits_for(so_far.photos + photos, rate_millionths) - so_far.credits


def evolve(organisation: Organisation | None, envelope: EventEnvelope) -> Organisation:
    """Return the organisation after an event, a snapshot included; None stands before its first one."""
    if isinstance(envelope.event, OrganisationSnapshot):
        return envelope.event.restore(envelope.originator_version)
    return envelope.mutate(organisation or Organisation(envelope.originator_id))


def _copy_lots(lots: Sequence[Lot]) -> list[Lot]:
    return [Lot(lot.kind, lot.number, lot.size, lot.remaining) for lot in lots]
