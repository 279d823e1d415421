"""The ledger's use cases: each method is a command on one organisation, recorded at most once.

A command reads the organisation, lets it decide, and has recorded what it decided (`domain.recording`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

import msgspec
from eventsourcing.application import AggregateNotFoundError, Application

from domain.aggregate import Aggregate, Event
from domain.audit_facts import AuditFact
from domain.credits import plan_draws
from domain.errors import (
    ChargeUnknown,
    HoldClosed,
    HoldUnknown,
    InvalidInput,
    OrganisationAlreadyOpen,
    OrganisationUnknown,
    PurchaseAlreadyRecorded,
    RepeatedKey,
)
from domain.facts import ChargeRefunded, CreditsPurchased, GrantKind, HoldPlaced, Plan, Request, UsageCharged
from domain.holds import HOLD_PREFIX, Hold, HoldRequest
from domain.identity import stream_id
from domain.money import Currency, cost_of
from domain.organisation import Organisation, evolve, lot_opened_by
from domain.ports import Once, Store
from domain.prices import PriceBook
from domain.rate_card import RateCard, UsageType
from domain.recording import Recording, Result

SNAPSHOT_EVERY: Final = 500
TRIAL_CREDITS: Final = 200
HOLD_LASTS: Final = timedelta(hours=1)
_VERSION: Final = re.compile(r"[1-9]\d{0,17}", re.ASCII)
ORGANISATION_ID_MAX_LENGTH: Final = 64


class HoldStanding(msgspec.Struct, frozen=True):
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


class Recorded(msgspec.Struct, frozen=True):
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
    hold: HoldStanding | None = None


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


Decision = Callable[[Organisation], Recorded]
RepeatError = type[RepeatedKey] | type[PurchaseAlreadyRecorded] | type[HoldClosed]
"""What to say where a decision meets a dedupe key that is in the ledger."""


class Ledger(Application[UUID]):
    """Commands and point-in-time reads on organisations."""

    name = "ledger"
    is_snapshotting_enabled = True

    def __init__(self, env: Mapping[str, str] | None = None, prices: PriceBook | None = None) -> None:
        super().__init__(env)
        self.prices = prices or PriceBook()
        self.recording = Recording(self._store, self._keep_snapshot)

    # ---------------------------------------------------------------------------------- commands

    def open_organisation(
        self,
        organisation_id: str,
        *,
        request: Request,
        time_zone: str = "UTC",
        currency: Currency = Currency.USD,
        price_millionths: int | None = None,
        trial_credits: int = TRIAL_CREDITS,
        once: Once | None = None,
    ) -> Result[Recorded]:
        """Open an organisation on the Trial plan.

        Raises:
            InvalidInput: a bad id, time zone, price or number of credits.
            OrganisationAlreadyOpen: it is open already.
            IdempotencyConflict: the key was used for another request.
            StoreUnavailable: the database cannot be reached.
        """
        check_organisation_id(organisation_id)
        if price_millionths is None:
            price_millionths = self.prices.at(request.at).of(currency).credit_price_millionths

        def decide() -> tuple[Sequence[Aggregate], Recorded]:
            organisation = Organisation.open(
                organisation_id,
                time_zone=time_zone,
                currency=currency,
                price_millionths=price_millionths,
                trial_credits=trial_credits,
                request=request,
            )
            return [organisation], _standing(organisation, credits_count=trial_credits)

        return self.recording.record(decide, once, Recorded, on_stale=OrganisationAlreadyOpen)

    def grant(
        self,
        organisation_id: str,
        credits_count: int,
        *,
        kind: GrantKind,
        reason: str,
        request: Request,
        once: Once | None = None,
    ) -> Result[Recorded]:
        """Give credits.

        Raises:
            OrganisationUnknown, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> Recorded:
            organisation.grant(credits_count, kind, reason, request)
            return _standing(organisation, credits_count=credits_count)

        return self._change(organisation_id, decide, once)

    def record_purchase(
        self,
        organisation_id: str,
        credits_count: int,
        *,
        payment_id: str,
        order_id: str,
        gateway: str,
        currency: Currency | None = None,
        request: Request,
        once: Once | None = None,
    ) -> Result[Recorded]:
        """Record credits that were paid for, at the organisation's price of this moment.

        A payment adds its credits once, whatever key the request carries.

        Raises:
            OrganisationUnknown, InvalidInput, IdempotencyConflict, StoreUnavailable.
            CurrencyMismatch: paid in another currency than the organisation's.
            PurchaseAlreadyRecorded: the payment has added its credits before.
        """

        def decide(organisation: Organisation) -> Recorded:
            paid_in = currency or organisation.currency
            tax_per_cent = self.prices.at(request.at).of(paid_in).tax_per_cent
            cost = cost_of(credits_count, organisation.price_millionths, tax_per_cent)
            purchased = organisation.purchase(
                credits_count,
                payment_id=payment_id,
                order_id=order_id,
                gateway=gateway,
                unit_price_millionths=organisation.price_millionths,
                cost=cost,
                currency=paid_in,
                request=request,
            )
            fact = cast(CreditsPurchased, purchased.fact)
            return Recorded(
                organisation.organisation_id,
                purchased.originator_version,
                organisation.balance,
                credits_count,
                fact.amount_minor,
                fact.tax_minor,
                fact.currency.value,
                organisation.available,
            )

        return self._change(organisation_id, decide, once, on_repeated=PurchaseAlreadyRecorded)

    def refund_charge(
        self,
        organisation_id: str,
        charge: int,
        credits_count: int | None,
        *,
        reason: str,
        request: Request,
        once: Once | None = None,
    ) -> Result[Recorded]:
        """Return credits of a charge, named by its version; all that is left of it without a number.

        Raises:
            OrganisationUnknown, InvalidInput, IdempotencyConflict, StoreUnavailable.
            ChargeUnknown: the version is not a charge.
            RefundExceedsCharge: less than that is left of the charge.
        """

        def decide(organisation: Organisation) -> Recorded:
            charged = self._event(organisation, charge)
            if charged is None or not isinstance(charged.fact, UsageCharged):
                raise ChargeUnknown(f"event {charge} of {organisation_id} is not a charge")
            origins = (self._event(organisation, portion.lot) for portion in charged.fact.draws)
            refunded = organisation.refund(
                charged,
                credits_count,
                earlier_refunds=[
                    cast(ChargeRefunded, event.fact)
                    for event in self._store.refunds_of(organisation.id, charge)
                ],
                opened_lots=[lot for origin in origins if origin for lot in lot_opened_by(origin)],
                reason=reason,
                request=request,
            )
            return _standing(organisation, credits_count=cast(ChargeRefunded, refunded.fact).credits)

        return self._change(organisation_id, decide, once)

    def change_price(
        self, organisation_id: str, price_millionths: int, *, request: Request, once: Once | None = None
    ) -> Result[Recorded]:
        """Set the price of one credit, in millionths of the currency unit.

        Raises:
            OrganisationUnknown, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> Recorded:
            organisation.change_price(price_millionths, request)
            return _standing(organisation)

        return self._change(organisation_id, decide, once)

    def change_plan(
        self,
        organisation_id: str,
        plan: Plan,
        *,
        expires_at: datetime | None = None,
        request: Request,
        once: Once | None = None,
    ) -> Result[Recorded]:
        """Move to another plan.

        Raises:
            OrganisationUnknown, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """
        if expires_at is not None and expires_at.tzinfo is None:
            raise InvalidInput("expires_at", "the end of a plan needs its zone, such as 2027-01-01T00:00:00Z")
        if expires_at is not None and expires_at <= request.at:
            raise InvalidInput("expires_at", "the plan would have ended already")

        def decide(organisation: Organisation) -> Recorded:
            organisation.change_plan(plan, expires_at, request)
            return _standing(organisation)

        return self._change(organisation_id, decide, once)

    def change_time_zone(
        self, organisation_id: str, time_zone: str, *, request: Request, once: Once | None = None
    ) -> Result[Recorded]:
        """Count later charges in another zone's days and months; past months stay.

        Raises:
            OrganisationUnknown, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> Recorded:
            organisation.change_time_zone(time_zone, request)
            return _standing(organisation)

        return self._change(organisation_id, decide, once)

    def set_low_balance_threshold(
        self, organisation_id: str, threshold: int, *, request: Request, once: Once | None = None
    ) -> Result[Recorded]:
        """Tell when less than this many credits are available; 0: never.

        Raises:
            OrganisationUnknown, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> Recorded:
            organisation.set_low_balance_threshold(threshold, request)
            return _standing(organisation)

        return self._change(organisation_id, decide, once)

    # ------------------------------------------------------------------------------------- audit

    def note(self, organisation_id: str, fact: AuditFact, *, once: Once | None = None) -> Result[Recorded]:
        """Put on record who changed something around an organisation's credits.

        Raises:
            OrganisationUnknown, IdempotencyConflict, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> Recorded:
            organisation.note(fact)
            return _standing(organisation)

        return self._change(organisation_id, decide, once)

    # ------------------------------------------------------------------------------------- holds

    def place_hold(
        self,
        organisation_id: str,
        wanted: HoldRequest,
        *,
        lasts: timedelta = HOLD_LASTS,
        request: Request,
        once: Once | None = None,
    ) -> Result[Recorded]:
        """Set credits aside for a run. A run has one hold: asking again while it is open returns it.

        Raises:
            OrganisationUnknown, InvalidInput, IdempotencyConflict, StoreUnavailable.
            InsufficientCredits: less is available than asked for, or nothing at all.
            HoldConflict: the run has an open hold that was asked for differently.
            HoldClosed: the run had its hold.
        """

        def decide(organisation: Organisation) -> Recorded:
            reported = self._store.photos_reported(organisation.id, wanted.run_id, organisation.version)
            hold = organisation.place_hold(wanted, request.at + lasts, request, reported=reported)
            return _hold_standing(organisation, hold, "open")

        return self._change(organisation_id, decide, once, on_repeated=HoldClosed)

    def settle_hold(
        self,
        organisation_id: str,
        hold_id: str,
        photos: int,
        *,
        usage_type: UsageType | None = None,
        rates: RateCard,
        request: Request,
        once: Once | None = None,
    ) -> Result[Recorded]:
        """End a run with this many photos in all: charge what no message has reported, free the rest.

        Raises:
            OrganisationUnknown, IdempotencyConflict, StoreUnavailable.
            InvalidInput: photos out of range, or the usage type is neither given nor known of the hold.
            HoldUnknown: no hold has this id.
            HoldClosed: it was settled, released, or has lapsed.
        """

        def decide(organisation: Organisation) -> Recorded:
            hold = self._open_hold(organisation, hold_id, request)
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
                rate_millionths=rates.rate_millionths(settled_type, ai_search, request.at),
                request=request,
            )
            return _hold_standing(
                organisation,
                hold,
                "settled",
                released=settled.released,
                charged=balance - organisation.balance,
            )

        return self._change(organisation_id, decide, once, on_repeated=HoldClosed)

    def release_hold(
        self, organisation_id: str, hold_id: str, *, request: Request, once: Once | None = None
    ) -> Result[Recorded]:
        """Give back what is left of a hold.

        Raises:
            OrganisationUnknown, IdempotencyConflict, StoreUnavailable.
            HoldUnknown: no hold has this id.
            HoldClosed: it was settled, released, or has lapsed.
        """

        def decide(organisation: Organisation) -> Recorded:
            hold = self._open_hold(organisation, hold_id, request)
            released = organisation.release_hold(hold_id, request)
            return _hold_standing(organisation, hold, "released", released=released.released)

        return self._change(organisation_id, decide, once)

    def end_pro(self, organisation_id: str, *, request: Request) -> Result[Recorded]:
        """Let a Pro subscription whose time is over fall back to Pay As You Go.

        Raises:
            OrganisationUnknown, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> Recorded:
            organisation.end_pro(request)
            return _standing(organisation)

        return self._change(organisation_id, decide, None)

    def lapse_holds(self, organisation_id: str, *, request: Request) -> Result[Recorded]:
        """Free the holds of an organisation whose time is over.

        Raises:
            OrganisationUnknown, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> Recorded:
            organisation.lapse_holds(request)
            return _standing(organisation)

        return self._change(organisation_id, decide, None)

    # ------------------------------------------------------------------------------------- reads

    def quote(self, organisation_id: str, credits_count: int, *, at: datetime) -> Quote:
        """Return from which lots a run of this many credits would be paid now, and what would remain.

        Holds that are past their time at `at` do not count any more. Nothing is recorded.

        Raises:
            OrganisationUnknown, StoreUnavailable.
        """
        organisation = self.organisation(organisation_id)
        organisation.lapse_holds(Request(at, None, "quote"))
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
            OrganisationUnknown: nobody opened it, or not by that version.
        """
        try:
            found: Organisation = self.repository.get(
                stream_id(organisation_id), version=version, projector_func=replay
            )
        except AggregateNotFoundError:
            raise OrganisationUnknown(f"no organisation has the id {organisation_id!r}") from None
        return found

    def organisation_as_of(self, organisation_id: str, moment: datetime) -> Organisation:
        """Return the organisation as the ledger knew it at a moment: all it had recorded by then.

        Raises:
            OrganisationUnknown: it was not open yet.
        """
        latest = self.organisation(organisation_id)
        recorded_by_then, after = 0, latest.version + 1
        while after - recorded_by_then > 1:  # bisection: a million events take twenty reads
            middle = (recorded_by_then + after) // 2
            event = self._event(latest, middle)
            if event is not None and event.fact.recorded_at <= moment:
                recorded_by_then = middle
            else:
                after = middle
        if recorded_by_then == 0:
            raise OrganisationUnknown(f"{organisation_id!r} was not open at {moment.isoformat()}")
        return self.organisation(organisation_id, version=recorded_by_then)

    # --------------------------------------------------------------------------------- mechanism

    @property
    def _store(self) -> Store:
        return cast(Store, self.events)

    def _keep_snapshot(self, aggregate: Aggregate, version_before: int) -> None:
        if isinstance(aggregate, Organisation) and snapshot_is_due(version_before, aggregate.version):
            assert self.snapshots is not None
            self.snapshots.put([aggregate.snapshot()])

    def _open_hold(self, organisation: Organisation, hold_id: str, request: Request) -> Hold:
        organisation.lapse_holds(request)
        try:
            return organisation.open_hold_of(hold_id)
        except HoldUnknown:
            number = hold_id.removeprefix(HOLD_PREFIX)
            placed = self._event(organisation, int(number)) if _VERSION.fullmatch(number) else None
            if placed is not None and isinstance(placed.fact, HoldPlaced) and placed.fact.hold_id == hold_id:
                raise HoldClosed(hold_id=hold_id) from None
            raise

    def _event(self, organisation: Organisation, version: int) -> Event | None:
        if not 1 <= version <= organisation.version:
            return None
        events = self._store.get(organisation.id, gt=version - 1, lte=version)
        return next(iter(events), None)

    def _change(
        self,
        organisation_id: str,
        decision: Decision,
        once: Once | None,
        *,
        on_repeated: RepeatError = RepeatedKey,
    ) -> Result[Recorded]:
        def decide() -> tuple[Sequence[Aggregate], Recorded]:
            organisation = self.organisation(organisation_id)
            return [organisation], decision(organisation)

        return self.recording.record(decide, once, Recorded, on_repeated=on_repeated)


def replay(organisation: Organisation | None, events: Any) -> Organisation | None:
    """Apply events in order: the library's projector, without its checks per event."""
    for event in events:
        organisation = evolve(organisation, event)
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


def _standing(organisation: Organisation, credits_count: int = 0) -> Recorded:
    return Recorded(
        organisation.organisation_id,
        organisation.version,
        organisation.balance,
        credits_count,
        available=organisation.available,
    )


def _hold_standing(
    organisation: Organisation, hold: Hold, status: str, *, released: int = 0, charged: int = 0
) -> Recorded:
    """Return where a hold stands after a command; what was open before has nothing remaining once closed."""
    is_open = status == "open"
    return msgspec.structs.replace(
        _standing(organisation, hold.size if is_open else 0),
        hold=HoldStanding(
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
