"""The ledger's use cases: each method is a command on one organisation, recorded at most once.

A command reads the organisation, lets it decide, and has recorded what it decided (`domain.shared.command_runner`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, cast
from uuid import UUID

import msgspec
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import DomainEventProtocol, MutableOrImmutableAggregate
from eventsourcing.persistence import EventStore as LibraryEventStore
from eventsourcing.persistence import Recording

from domain.credits.audit_events import AuditEvent
from domain.credits.errors import (
    ChargeNotFound,
    HoldClosed,
    HoldNotFound,
    OrganisationAlreadyOpen,
    OrganisationNotFound,
    PurchaseAlreadyRecorded,
)
from domain.credits.events import (
    ChargeRefunded,
    CreditsPurchased,
    GrantKind,
    HoldPlaced,
    UsageCharged,
)
from domain.credits.holds import HOLD_PREFIX, Hold, HoldRequest
from domain.credits.lots import plan_draws
from domain.credits.organisation import Organisation, evolve
from domain.credits.refund_allocation import lot_opened_by
from domain.pricing.plans import Plan
from domain.pricing.price_book import PriceBook
from domain.pricing.rate_card import RateCard, UsageType
from domain.shared.aggregate import Aggregate, EventEnvelope
from domain.shared.command_context import CommandContext
from domain.shared.command_runner import CommandRunner, RecordedResult
from domain.shared.errors import DuplicateKey, InvalidInput
from domain.shared.event_store import EventStore, IdempotencyKey
from domain.shared.money import Currency, cost_of
from domain.shared.stream_keys import stream_id

SNAPSHOT_EVERY: Final = 500
TRIAL_CREDITS: Final = 200
HOLD_DURATION_DEFAULT: Final = timedelta(hours=1)
_VERSION: Final = re.compile(r"[1-9]\d{0,17}", re.ASCII)
ORGANISATION_ID_MAX_LENGTH: Final = 64


class HoldResult(msgspec.Struct, frozen=True):
    """A hold after a command on it: `credits` were held, `remaining` of them still are.

    `charged` is what a settlement charged ahead of the run's messages.
    """

    hold_id: str
    run_id: str
    status: str
    credits: int
    remaining: int
    expires_at: datetime
    released: int = 0
    charged: int = 0


class CommandResult(msgspec.Struct, frozen=True):
    """The answer to every command: what the organisation stands at after it.

    `version` is the number of the event it recorded in the organisation's history (a charge or an addition
    is named by it), `balance`, `available` and `credits` are credits, prices are millionths, and amounts
    minor units of the currency.
    """

    organisation_id: str
    version: int
    balance: int
    credits: int = 0
    amount_minor: int | None = None
    tax_minor: int | None = None
    currency: str | None = None
    available: int = 0
    hold: HoldResult | None = None


class QuotedDraw(msgspec.Struct, frozen=True):
    """Credits that a run would draw from a lot, named by the version of the event that opened it."""

    lot: int
    kind: str
    credits: int


class Quote(msgspec.Struct, frozen=True):
    """What a run would cost: its credits by lot in spend order, what no lot covers, and what would remain.

    `draws` and `overdraft` are of the balance; `available` is the balance less open holds.
    """

    credits: int
    draws: list[QuotedDraw]
    overdraft: int
    available: int
    available_after: int


Decision = Callable[[Organisation], CommandResult]
DuplicateKeyError = type[DuplicateKey] | type[PurchaseAlreadyRecorded] | type[HoldClosed]
"""What to say where a decision meets a dedupe key that is in the ledger."""


class Ledger(Application[UUID]):
    """Commands and point-in-time reads on organisations."""

    name = "ledger"
    is_snapshotting_enabled = True
    snapshotting_intervals: ClassVar[dict[type[MutableOrImmutableAggregate[Any]], int]] = {
        Organisation: SNAPSHOT_EVERY
    }
    events: EventStore

    def __init__(self, env: Mapping[str, str] | None = None, prices: PriceBook | None = None) -> None:
        super().__init__(env)
        self.prices = prices or PriceBook()
        self.runner = CommandRunner(self._store, self._save_snapshot)

    def construct_event_store(self) -> EventStore:
        """Return the event store, of which commands need more than the library does."""
        store: LibraryEventStore[UUID] = super().construct_event_store()
        assert isinstance(store, EventStore), "PERSISTENCE_MODULE is not the ledger's own"
        return store

    def save(
        self, *objs: MutableOrImmutableAggregate[UUID] | DomainEventProtocol[UUID] | None, **kwargs: Any
    ) -> list[Recording[UUID]]:
        """Append what aggregates decided, without an idempotency key and without deciding again.

        Raises:
            InvariantViolation: the state of one of them contradicts itself; nothing is appended.
            VersionConflict, DuplicateKey, StoreUnavailable.
        """
        for aggregate in objs:
            if isinstance(aggregate, Aggregate):
                aggregate.check_invariants()
        return super().save(*objs, **kwargs)

    # ---------------------------------------------------------------------------------- commands

    def open_organisation(
        self,
        organisation_id: str,
        *,
        context: CommandContext,
        time_zone: str = "UTC",
        currency: Currency = Currency.USD,
        price_millionths: int | None = None,
        trial_credits: int = TRIAL_CREDITS,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Open an organisation on the Trial plan.

        Raises:
            InvalidInput: a bad id, time zone, price or number of credits.
            OrganisationAlreadyOpen: it is open already.
            IdempotencyConflict: the key was used for another request.
            StoreUnavailable: the database cannot be reached.
        """
        check_organisation_id(organisation_id)
        if price_millionths is None:
            price_millionths = self.prices.at(context.at).of(currency).credit_price_millionths

        def decide() -> tuple[Sequence[Aggregate], CommandResult]:
            organisation = Organisation.open(
                organisation_id,
                time_zone=time_zone,
                currency=currency,
                price_millionths=price_millionths,
                trial_credits=trial_credits,
                context=context,
            )
            return [organisation], _result(organisation, credits_count=trial_credits)

        return self.runner.run(
            decide, idempotency_key, CommandResult, on_version_conflict=OrganisationAlreadyOpen
        )

    def grant(
        self,
        organisation_id: str,
        credits_count: int,
        *,
        kind: GrantKind,
        reason: str,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Give credits.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> CommandResult:
            organisation.grant(credits_count, kind, reason, context)
            return _result(organisation, credits_count=credits_count)

        return self._change(organisation_id, decide, idempotency_key)

    def record_purchase(
        self,
        organisation_id: str,
        credits_count: int,
        *,
        payment_id: str,
        order_id: str,
        gateway: str,
        currency: Currency | None = None,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Record credits that were paid for, at the organisation's price of this moment.

        A payment adds its credits once, whatever key the request carries.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
            CurrencyMismatch: paid in another currency than the organisation's.
            PurchaseAlreadyRecorded: the payment has added its credits before.
        """

        def decide(organisation: Organisation) -> CommandResult:
            paid_in = currency or organisation.currency
            tax_per_cent = self.prices.at(context.at).of(paid_in).tax_per_cent
            cost = cost_of(credits_count, organisation.price_millionths, tax_per_cent)
            purchased = organisation.purchase(
                credits_count,
                payment_id=payment_id,
                order_id=order_id,
                gateway=gateway,
                unit_price_millionths=organisation.price_millionths,
                cost=cost,
                currency=paid_in,
                context=context,
            )
            event = cast("CreditsPurchased", purchased.event)
            return CommandResult(
                organisation.organisation_id,
                purchased.originator_version,
                organisation.balance,
                credits_count,
                event.amount_minor,
                event.tax_minor,
                event.currency.value,
                organisation.available,
            )

        return self._change(
            organisation_id, decide, idempotency_key, on_duplicate_key=PurchaseAlreadyRecorded
        )

    def refund_charge(
        self,
        organisation_id: str,
        charge: int,
        credits_count: int | None,
        *,
        reason: str,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Return credits of a charge, named by its version; all that is left of it without a number.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
            ChargeNotFound: the version is not a charge.
            RefundExceedsCharge: less than that is left of the charge.
        """

        def decide(organisation: Organisation) -> CommandResult:
            charged = self._event(organisation, charge)
            if charged is None or not isinstance(charged.event, UsageCharged):
                raise ChargeNotFound(f"event {charge} of {organisation_id} is not a charge")
            origins = (self._event(organisation, allocation.lot) for allocation in charged.event.draws)
            refunded = organisation.refund(
                charged,
                credits_count,
                earlier_refunds=[
                    cast("ChargeRefunded", envelope.event)
                    for envelope in self._store.refunds_of(organisation.id, charge)
                ],
                opened_lots=[lot for origin in origins if origin for lot in lot_opened_by(origin)],
                reason=reason,
                context=context,
            )
            return _result(organisation, credits_count=cast("ChargeRefunded", refunded.event).credits)

        return self._change(organisation_id, decide, idempotency_key)

    def change_price(
        self,
        organisation_id: str,
        price_millionths: int,
        *,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Set the price of one credit, in millionths of the currency unit.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> CommandResult:
            organisation.change_price(price_millionths, context)
            return _result(organisation)

        return self._change(organisation_id, decide, idempotency_key)

    def change_plan(
        self,
        organisation_id: str,
        plan: Plan,
        *,
        expires_at: datetime | None = None,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Move to another plan.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """
        if expires_at is not None and expires_at.tzinfo is None:
            raise InvalidInput("expires_at", "the end of a plan needs its zone, such as 2027-01-01T00:00:00Z")
        if expires_at is not None and expires_at <= context.at:
            raise InvalidInput("expires_at", "the plan would have ended already")

        def decide(organisation: Organisation) -> CommandResult:
            organisation.change_plan(plan, expires_at, context)
            return _result(organisation)

        return self._change(organisation_id, decide, idempotency_key)

    def change_time_zone(
        self,
        organisation_id: str,
        time_zone: str,
        *,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Count later charges in another zone's days and months; past months stay.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> CommandResult:
            organisation.change_time_zone(time_zone, context)
            return _result(organisation)

        return self._change(organisation_id, decide, idempotency_key)

    def set_low_balance_threshold(
        self,
        organisation_id: str,
        threshold: int,
        *,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Tell when less than this many credits are available; 0: never.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> CommandResult:
            organisation.set_low_balance_threshold(threshold, context)
            return _result(organisation)

        return self._change(organisation_id, decide, idempotency_key)

    # ------------------------------------------------------------------------------------- audit

    def record_audit_event(
        self, organisation_id: str, event: AuditEvent, *, idempotency_key: IdempotencyKey | None = None
    ) -> RecordedResult[CommandResult]:
        """Put on record who changed something around an organisation's credits.

        Raises:
            OrganisationNotFound, IdempotencyConflict, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> CommandResult:
            organisation.record_audit_event(event)
            return _result(organisation)

        return self._change(organisation_id, decide, idempotency_key)

    # ------------------------------------------------------------------------------------- holds

    def place_hold(
        self,
        organisation_id: str,
        wanted: HoldRequest,
        *,
        duration: timedelta = HOLD_DURATION_DEFAULT,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Set credits aside for a run. A run has one hold: asking again while it is open returns it.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
            InsufficientCredits: less is available than asked for, or nothing at all.
            HoldConflict: the run has an open hold that was asked for differently.
            HoldClosed: the run had its hold.
        """

        def decide(organisation: Organisation) -> CommandResult:
            reported = self._store.photos_reported(organisation.id, wanted.run_id, organisation.version)
            hold = organisation.place_hold(wanted, context.at + duration, context, reported=reported)
            return _hold_result(organisation, hold, "open")

        return self._change(organisation_id, decide, idempotency_key, on_duplicate_key=HoldClosed)

    def settle_hold(
        self,
        organisation_id: str,
        hold_id: str,
        photos: int,
        *,
        usage_type: UsageType | None = None,
        rates: RateCard,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """End a run with this many photos in all: charge what no message has reported, free the rest.

        Raises:
            OrganisationNotFound, IdempotencyConflict, StoreUnavailable.
            InvalidInput: photos out of range, or the usage type is neither given nor known of the hold.
            HoldNotFound: no hold has this id.
            HoldClosed: it was settled, released, or has lapsed.
        """

        def decide(organisation: Organisation) -> CommandResult:
            hold = self._open_hold(organisation, hold_id, context)
            settled_type = usage_type or hold.request.usage_type or _only_type(hold)
            if settled_type is None:
                raise InvalidInput("usage_type", "the hold was not placed for a usage type: name it")
            ai_search = hold.request.ai_search
            balance = organisation.balance
            settled = organisation.settle_hold(
                hold_id,
                photos,
                usage_type=settled_type,
                ai_search=ai_search,
                rate_millionths=rates.rate_millionths(settled_type, ai_search, context.at),
                context=context,
            )
            return _hold_result(
                organisation,
                hold,
                "settled",
                released=settled.released,
                charged=balance - organisation.balance,
            )

        return self._change(organisation_id, decide, idempotency_key, on_duplicate_key=HoldClosed)

    def release_hold(
        self,
        organisation_id: str,
        hold_id: str,
        *,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Give back what is left of a hold.

        Raises:
            OrganisationNotFound, IdempotencyConflict, StoreUnavailable.
            HoldNotFound: no hold has this id.
            HoldClosed: it was settled, released, or has lapsed.
        """

        def decide(organisation: Organisation) -> CommandResult:
            hold = self._open_hold(organisation, hold_id, context)
            released = organisation.release_hold(hold_id, context)
            return _hold_result(organisation, hold, "released", released=released.released)

        return self._change(organisation_id, decide, idempotency_key)

    def expire_pro(self, organisation_id: str, *, context: CommandContext) -> RecordedResult[CommandResult]:
        """Let a Pro subscription whose time is over fall back to Pay As You Go.

        Raises:
            OrganisationNotFound, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> CommandResult:
            organisation.expire_pro(context)
            return _result(organisation)

        return self._change(organisation_id, decide, None)

    def expire_holds(self, organisation_id: str, *, context: CommandContext) -> RecordedResult[CommandResult]:
        """Free the holds of an organisation whose time is over.

        Raises:
            OrganisationNotFound, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> CommandResult:
            organisation.expire_holds(context)
            return _result(organisation)

        return self._change(organisation_id, decide, None)

    # ------------------------------------------------------------------------------------- reads

    def quote(self, organisation_id: str, credits_count: int, *, at: datetime) -> Quote:
        """Return from which lots a run of this many credits would be paid now, and what would remain.

        Holds that are past their time at `at` do not count any more. Nothing is recorded.

        Raises:
            OrganisationNotFound, StoreUnavailable.
        """
        organisation = self.organisation(organisation_id)
        organisation.expire_holds(CommandContext(at, None, "quote"))
        draws, overdraft = plan_draws(organisation.lots, credits_count)
        kinds = {lot.number: lot.kind for lot in organisation.lots}
        return Quote(
            credits_count,
            [QuotedDraw(draw.lot, kinds[draw.lot].name.lower(), draw.credits) for draw in draws],
            overdraft,
            organisation.available,
            organisation.available - credits_count,
        )

    def organisation(self, organisation_id: str, *, version: int | None = None) -> Organisation:
        """Return the organisation as of a version of its history, or as it is now.

        Raises:
            OrganisationNotFound: nobody opened it, or not by that version.
        """
        try:
            found: Organisation = self.repository.get(
                stream_id(organisation_id), version=version, projector_func=replay
            )
        except AggregateNotFoundError:
            raise OrganisationNotFound(f"no organisation has the id {organisation_id!r}") from None
        return found

    def organisation_as_of(self, organisation_id: str, moment: datetime) -> Organisation:
        """Return the organisation as the ledger knew it at a moment: all it had recorded by then.

        Raises:
            OrganisationNotFound: it was not open yet.
        """
        latest = self.organisation(organisation_id)
        recorded_by_then, after = 0, latest.version + 1
        while after - recorded_by_then > 1:  # bisection: a million events take twenty reads
            middle = (recorded_by_then + after) // 2
            envelope = self._event(latest, middle)
            if envelope is not None and envelope.event.recorded_at <= moment:
                recorded_by_then = middle
            else:
                after = middle
        if recorded_by_then == 0:
            raise OrganisationNotFound(f"{organisation_id!r} was not open at {moment.isoformat()}")
        return self.organisation(organisation_id, version=recorded_by_then)

    # --------------------------------------------------------------------------------- mechanism

    @property
    def _store(self) -> EventStore:
        return self.events

    def _save_snapshot(self, aggregate: Aggregate, version_before: int) -> None:
        is_due = isinstance(aggregate, Organisation) and snapshot_is_due(version_before, aggregate.version)
        if is_due and self.snapshots is not None:  # None where IS_SNAPSHOTTING_ENABLED says no
            self.snapshots.put([aggregate.snapshot()])

    def _open_hold(self, organisation: Organisation, hold_id: str, context: CommandContext) -> Hold:
        organisation.expire_holds(context)
        try:
            return organisation.find_open_hold(hold_id)
        except HoldNotFound:
            number = hold_id.removeprefix(HOLD_PREFIX)
            placed = self._event(organisation, int(number)) if _VERSION.fullmatch(number) else None
            if (
                placed is not None
                and isinstance(placed.event, HoldPlaced)
                and placed.event.hold_id == hold_id
            ):
                raise HoldClosed(hold_id=hold_id) from None
            raise

    def _event(self, organisation: Organisation, version: int) -> EventEnvelope | None:
        if not 1 <= version <= organisation.version:
            return None
        events = self._store.get(organisation.id, gt=version - 1, lte=version)
        return next(iter(events), None)

    def _change(
        self,
        organisation_id: str,
        decision: Decision,
        idempotency_key: IdempotencyKey | None,
        *,
        on_duplicate_key: DuplicateKeyError = DuplicateKey,
    ) -> RecordedResult[CommandResult]:
        def decide() -> tuple[Sequence[Aggregate], CommandResult]:
            organisation = self.organisation(organisation_id)
            return [organisation], decision(organisation)

        return self.runner.run(decide, idempotency_key, CommandResult, on_duplicate_key=on_duplicate_key)


def replay(organisation: Organisation | None, events: Any) -> Organisation | None:
    """Apply events in order: the library's projector, without its checks per event."""
    for envelope in events:
        organisation = evolve(organisation, envelope)
    return organisation


def snapshot_is_due(before: int, after: int) -> bool:
    """Tell whether a multiple of `SNAPSHOT_EVERY` lies between two versions."""
    return before // SNAPSHOT_EVERY != after // SNAPSHOT_EVERY


def check_organisation_id(organisation_id: str) -> None:
    """Check the platform's own id: opaque, 1 to 64 printable characters.

    Raises:
        InvalidInput: empty, too long, or with a control character.
    """
    if not 1 <= len(organisation_id) <= ORGANISATION_ID_MAX_LENGTH or not organisation_id.isprintable():
        raise InvalidInput(
            "organisation_id",
            f"an organisation id has 1 to {ORGANISATION_ID_MAX_LENGTH} printable characters",
        )


def _result(organisation: Organisation, credits_count: int = 0) -> CommandResult:
    return CommandResult(
        organisation.organisation_id,
        organisation.version,
        organisation.balance,
        credits_count,
        available=organisation.available,
    )


def _hold_result(
    organisation: Organisation, hold: Hold, status: str, *, released: int = 0, charged: int = 0
) -> CommandResult:
    """Return where a hold stands after a command; what was open before has nothing remaining once closed."""
    is_open = status == "open"
    return msgspec.structs.replace(
        _result(organisation, hold.size if is_open else 0),
        hold=HoldResult(
            hold.hold_id,
            hold.request.run_id,
            status,
            hold.size,
            hold.remaining if is_open else 0,
            hold.expires_at,
            released,
            charged,
        ),
    )


def _only_type(hold: Hold) -> UsageType | None:
    """Return the usage type of a hold's messages, if they are all of one."""
    return next(iter(hold.photos)) if len(hold.photos) == 1 else None
