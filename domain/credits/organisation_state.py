"""The state of an organisation, and how each event changes it; `domain.credits.organisation` decides.

Invariants: sum of lots - overdraft = balance = sum of the credits of all events; available = balance - open
holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Self
from uuid import UUID

import msgspec
from msgspec.structs import replace

from domain.credits.audit_events import AUDIT_EVENT_TYPES
from domain.credits.auto_top_up import AutoTopUp, TopUpAttempt, TopUpTerms
from domain.credits.auto_top_up_events import (
    AutoTopUpBegun,
    AutoTopUpChanged,
    AutoTopUpHeld,
    AutoTopUpSwitchedOff,
    AutoTopUpSwitchedOn,
)
from domain.credits.events import (
    BalanceWentLow,
    ChargeRefunded,
    CreditsExhausted,
    CreditsGranted,
    CreditsPurchased,
    CreditsReplenished,
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
from domain.credits.holds import Hold, Settlement, SettlementKey
from domain.credits.lots import Lot, LotKind, copy_lots, draw, restore, withdraw
from domain.credits.run_totals import RUN_TOTAL_RETENTION, RunKey, RunTotal, add_to_run_totals
from domain.pricing.plans import Plan
from domain.pricing.rate_card import WHOLE_CREDIT_MILLIONTHS
from domain.shared.aggregate import Aggregate, EventEnvelope
from domain.shared.errors import InvariantViolation
from domain.shared.money import Currency
from domain.shared.state_fields import SnapshotLayout, compile_fork, field_metadata

SNAPSHOT_EVERY: Final = 500
NEVER: Final = datetime.max.replace(tzinfo=UTC)


def _values(entries: Mapping[Any, Any]) -> list[Any]:
    return list(entries.values())


def _by_run(holds: Iterable[Hold]) -> dict[str, Hold]:
    return {hold.request.run_id: hold for hold in holds}


def _by_run_and_type(settlements: Iterable[Settlement]) -> dict[SettlementKey, Settlement]:
    return {(each.run_id, each.usage_type): each for each in settlements}


def _pairs(totals: Mapping[RunKey, RunTotal]) -> list[tuple[RunKey, RunTotal]]:
    return list(totals.items())


@dataclass(slots=True, eq=False, repr=False)
class OrganisationState(Aggregate):
    """An organisation's credits. Small, however long its history is: only lots that are not empty are kept.

    The fields that are not derived are in the order of the stored snapshot. New fields go after them and
    are optional.
    """

    stream: InitVar[UUID]
    organisation_id: str = ""
    time_zone: str = "UTC"
    currency: Currency = Currency.USD
    price_millionths: int = 0
    plan: Plan = Plan.TRIAL
    plan_expires_at: datetime | None = None
    lots: list[Lot] = field(
        default_factory=list, metadata=field_metadata(copy=copy_lots, dump=copy_lots, load=copy_lots)
    )
    overdraft: int = 0
    run_totals: dict[RunKey, RunTotal] = field(
        default_factory=dict,
        metadata=field_metadata(
            copy=dict.copy, stored_as=list[tuple[RunKey, RunTotal]], dump=_pairs, load=dict
        ),
    )
    holds: dict[str, Hold] = field(
        default_factory=dict,
        metadata=field_metadata(
            copy=dict.copy, optional=True, stored_as=list[Hold], dump=_values, load=_by_run
        ),
    )
    settlements: dict[SettlementKey, Settlement] = field(
        default_factory=dict,
        metadata=field_metadata(
            copy=dict.copy, optional=True, stored_as=list[Settlement], dump=_values, load=_by_run_and_type
        ),
    )
    low_balance_threshold: int = field(default=0, metadata=field_metadata(optional=True))
    auto_top_up: AutoTopUp | None = field(default=None, metadata=field_metadata(optional=True))
    balance: int = field(default=0, metadata=field_metadata(derived=True))
    on_hold: int = field(default=0, metadata=field_metadata(derived=True))
    next_expiry: datetime = field(default=NEVER, metadata=field_metadata(derived=True))
    """When the first of the open holds expires."""
    _available_before: int = field(default=0, metadata=field_metadata(derived=True))
    """What was available before the first of the pending events."""

    def __post_init__(self, stream: UUID) -> None:
        Aggregate.__init__(self, stream)

    @property
    def available(self) -> int:
        """Credits a new run may use; processing is paused while this is 0 or less."""
        return self.balance - self.on_hold

    def __eq__(self, other: object) -> bool:
        """Compare the fields of the snapshot.

        Derived fields need no comparison, and uncollected events are ignored.
        """
        return isinstance(other, OrganisationState) and self.snapshot() == other.snapshot()

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def from_snapshot(cls, envelope: EventEnvelope) -> Self:
        """Return the organisation as it was at the version of a snapshot."""
        state = cls(envelope.originator_id)
        state._continue_after(envelope)
        _LAYOUT.load(state, envelope.event)
        state._derive()
        return state

    def fork(self) -> Self:
        """Return a copy to decide on. What happens to the copy leaves this one unchanged."""
        return _fork(self)

    def snapshot(self) -> EventEnvelope:
        """Return the state as an event at the current version, for the snapshot store."""
        return EventEnvelope(
            self.id, self.version, OrganisationSnapshot(self.last_recorded_at, *_LAYOUT.dump(self))
        )

    def due_snapshot(self, version_before: int) -> EventEnvelope | None:
        """Return a snapshot if a multiple of `SNAPSHOT_EVERY` lies between a version and the current one."""
        is_due = version_before // SNAPSHOT_EVERY != self.version // SNAPSHOT_EVERY
        return self.snapshot() if is_due else None

    def check_invariants(self) -> None:
        """Check lots, overdraft, holds and balance against each other.

        Raises:
            InvariantViolation: they do not agree, or one is out of its bounds.
        """
        if sum(lot.remaining for lot in self.lots) - self.overdraft != self.balance:
            raise InvariantViolation(f"lots less overdraft are not the balance of {self.organisation_id}")
        if any(not 0 < lot.remaining <= lot.size for lot in self.lots):
            raise InvariantViolation(f"a lot of {self.organisation_id} is out of its bounds")
        if self.overdraft < 0 or (self.overdraft and self.lots):
            raise InvariantViolation(
                f"{self.organisation_id} has an overdraft although it has credits to pay it"
            )
        if sum(hold.remaining for hold in self.holds.values()) != self.on_hold:
            raise InvariantViolation(f"open holds of {self.organisation_id} are not what it has on hold")
        if any(not 0 <= hold.remaining <= hold.size for hold in self.holds.values()):
            raise InvariantViolation(f"a hold of {self.organisation_id} is out of its bounds")

    def _derive(self) -> None:
        """Set the derived fields from the others."""
        self.balance = sum(lot.remaining for lot in self.lots) - self.overdraft
        self.on_hold = sum(hold.remaining for hold in self.holds.values())
        self.next_expiry = _first_expiry(self.holds)


_LAYOUT: Final = SnapshotLayout(OrganisationState)
_fork: Final = compile_fork(OrganisationState, ("id", "version", "last_recorded_at"))


class _Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """The whole state of an organisation at a version: replay may start here."""

    recorded_at: datetime

    actor: ClassVar[str | None] = None
    cause: ClassVar[str] = ""
    balance_delta: ClassVar[int] = 0


OrganisationSnapshot: Final[type[_Snapshot]] = _LAYOUT.snapshot_type("OrganisationSnapshot", _Snapshot)


# ------------------------------------------------------------------------- how each event changes the state


def _opened(state: OrganisationState, event: OrganisationOpened) -> None:
    state.organisation_id = event.organisation_id
    state.time_zone = event.time_zone
    state.currency = event.currency
    state.price_millionths = event.price_millionths
    state.plan = event.plan


def _credits_granted(state: OrganisationState, event: CreditsGranted) -> None:
    _open_lot(state, LotKind.FREE, event.credits, event.overdraft_covered)


def _credits_purchased(state: OrganisationState, event: CreditsPurchased) -> None:
    _open_lot(state, LotKind.PAID, event.credits, event.overdraft_covered)


def _usage_charged(state: OrganisationState, event: UsageCharged) -> None:
    draw(state.lots, event.draws)
    state.overdraft += event.overdraft
    state.balance -= event.credits
    apply_charge_to_run(state, event)


def apply_charge_to_run(state: OrganisationState, event: UsageCharged) -> None:
    """Add a charge to the totals, the settlement and the hold of its run."""
    if event.rate_millionths % WHOLE_CREDIT_MILLIONTHS:
        add_to_run_totals(state.run_totals, event)
    if event.settled:
        _use_settlement(state.settlements, (event.run_id, event.usage_type), event.settled)
    if state.holds:
        hold = state.holds.get(event.run_id)
        if hold is not None:
            photos = hold.photos.get(event.usage_type, 0) + event.photos
            state.on_hold -= event.from_hold
            state.holds[event.run_id] = replace(
                hold,
                remaining=hold.remaining - event.from_hold,
                photos={**hold.photos, event.usage_type: photos},
                event_id=event.event_id or hold.event_id,
                event_name=event.event_name if event.event_id else hold.event_name,
            )


def _charge_refunded(state: OrganisationState, event: ChargeRefunded) -> None:
    state.overdraft -= event.overdraft_covered
    state.balance += event.credits
    for lot in event.returned:
        # A copy: the lot in the event must never change when the organisation spends from it.
        restore(state.lots, Lot(lot.kind, lot.number, lot.size, lot.remaining))


def _purchase_refunded(state: OrganisationState, event: PurchaseRefunded) -> None:
    state.balance -= event.credits
    withdraw(state.lots, event.purchase, event.credits)


def _purchase_refund_reversed(state: OrganisationState, event: PurchaseRefundReversed) -> None:
    state.overdraft -= event.overdraft_covered
    state.balance += event.credits
    if event.credits > event.overdraft_covered:
        taken = event.taken
        restore(
            state.lots, Lot(taken.kind, taken.number, taken.size, taken.remaining - event.overdraft_covered)
        )


def _price_changed(state: OrganisationState, event: PriceChanged) -> None:
    state.price_millionths = event.price_millionths


def _plan_changed(state: OrganisationState, event: PlanChanged) -> None:
    state.plan = event.plan
    state.plan_expires_at = event.expires_at


def _time_zone_changed(state: OrganisationState, event: TimeZoneChanged) -> None:
    state.time_zone = event.time_zone


def _low_balance_threshold_set(state: OrganisationState, event: LowBalanceThresholdSet) -> None:
    state.low_balance_threshold = event.threshold


def _hold_placed(state: OrganisationState, event: HoldPlaced) -> None:
    hold = Hold(event.hold_id, event.request, event.credits, event.credits, event.expires_at, event.reported)
    state.holds[event.request.run_id] = hold
    state.on_hold += hold.remaining
    state.next_expiry = min(state.next_expiry, hold.expires_at)


def _hold_settled(state: OrganisationState, event: HoldSettled) -> None:
    _close_hold(state, event)
    if event.unreported_photos and event.usage_type is not None:
        settlement = Settlement(event.run_id, event.usage_type, event.unreported_photos, event.recorded_at)
        oldest = event.recorded_at - RUN_TOTAL_RETENTION
        state.settlements = {
            key: old for key, old in state.settlements.items() if old.settled_at >= oldest
        } | {(event.run_id, event.usage_type): settlement}


def _close_hold(state: OrganisationState, event: HoldSettled | HoldReleased | HoldExpired) -> None:
    state.on_hold -= state.holds.pop(event.run_id).remaining
    state.next_expiry = _first_expiry(state.holds)


def _auto_top_up_switched_on(state: OrganisationState, event: AutoTopUpSwitchedOn) -> None:
    before = state.auto_top_up
    state.auto_top_up = AutoTopUp(
        is_on=True,
        terms=TopUpTerms(event.credits, event.threshold, event.per_day),
        card_of=event.payment_id,
        amount_minor_max=event.amount_minor_max,
        attempts=() if before is None else before.attempts,
    )


def _auto_top_up_changed(state: OrganisationState, event: AutoTopUpChanged) -> None:
    terms = TopUpTerms(event.credits, event.threshold, event.per_day)
    state.auto_top_up = replace(_switched_on_before(state), terms=terms, held_on=None)


def _auto_top_up_switched_off(state: OrganisationState, _: AutoTopUpSwitchedOff) -> None:
    state.auto_top_up = replace(_switched_on_before(state), is_on=False)


def _auto_top_up_begun(state: OrganisationState, event: AutoTopUpBegun) -> None:
    attempt = TopUpAttempt(event.recorded_at, event.day, state.time_zone)
    state.auto_top_up = _switched_on_before(state).with_attempt(attempt, event.payment_id, event.failures)


def _auto_top_up_held(state: OrganisationState, event: AutoTopUpHeld) -> None:
    state.auto_top_up = replace(_switched_on_before(state), held_on=event.day)


def _no_change(_: OrganisationState, __: object) -> None:
    """Leave the state as it is: the event is for readers of the log."""


def _open_lot(state: OrganisationState, kind: LotKind, credits_count: int, overdraft_covered: int) -> None:
    """Add credits at the current version: they pay the overdraft, and the rest is a new lot."""
    state.overdraft -= overdraft_covered
    state.balance += credits_count
    if credits_count > overdraft_covered:
        size = credits_count - overdraft_covered
        restore(state.lots, Lot(kind, state.version, size, size))


def _use_settlement(settlements: dict[SettlementKey, Settlement], key: SettlementKey, photos: int) -> None:
    """Take off photos that a message has now reported."""
    left = settlements[key].photos - photos
    if left:
        settlements[key] = replace(settlements[key], photos=left)
    else:
        del settlements[key]


def _first_expiry(holds: Mapping[str, Hold]) -> datetime:
    return min((hold.expires_at for hold in holds.values()), default=NEVER)


def _switched_on_before(state: OrganisationState) -> AutoTopUp:
    assert state.auto_top_up is not None
    return state.auto_top_up


OrganisationState.APPLY = {
    OrganisationOpened: _opened,
    CreditsGranted: _credits_granted,
    CreditsPurchased: _credits_purchased,
    UsageCharged: _usage_charged,
    ChargeRefunded: _charge_refunded,
    PurchaseRefunded: _purchase_refunded,
    PurchaseRefundReversed: _purchase_refund_reversed,
    PriceChanged: _price_changed,
    PlanChanged: _plan_changed,
    TimeZoneChanged: _time_zone_changed,
    LowBalanceThresholdSet: _low_balance_threshold_set,
    HoldPlaced: _hold_placed,
    HoldSettled: _hold_settled,
    HoldReleased: _close_hold,
    HoldExpired: _close_hold,
    AutoTopUpSwitchedOn: _auto_top_up_switched_on,
    AutoTopUpChanged: _auto_top_up_changed,
    AutoTopUpSwitchedOff: _auto_top_up_switched_off,
    AutoTopUpBegun: _auto_top_up_begun,
    AutoTopUpHeld: _auto_top_up_held,
    BalanceWentLow: _no_change,
    CreditsExhausted: _no_change,
    CreditsReplenished: _no_change,
    **dict.fromkeys(AUDIT_EVENT_TYPES, _no_change),
}
