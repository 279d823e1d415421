"""The public forms of the credit events of an organisation."""

from __future__ import annotations

from typing import Final

from consumers.publishing.public_mapping import Data, PublicMapping, PublicMappings, in_utc, iso_day
from domain.credits import events as credit_events
from domain.credits.lots import LotKind

_LOT_KINDS: Final = {LotKind.FREE: "free", LotKind.PAID: "paid"}


def _organisation_opened(event: credit_events.OrganisationOpened) -> Data:
    return {
        "organisation_id": event.organisation_id,
        "time_zone": event.time_zone,
        "currency": event.currency.value,
        "price_millionths": event.price_millionths,
        "plan": event.plan.value,
    }


def _credits_granted(event: credit_events.CreditsGranted) -> Data:
    return {"credits": event.credits, "kind": event.kind.value, "overdraft_covered": event.overdraft_covered}


def _credits_purchased(event: credit_events.CreditsPurchased) -> Data:
    return {
        "credits": event.credits,
        "payment_id": event.payment_id,
        "order_id": event.order_id,
        "gateway": event.gateway,
        "unit_price_millionths": event.unit_price_millionths,
        "amount_minor": event.amount_minor,
        "tax_minor": event.tax_minor,
        "currency": event.currency.value,
        "overdraft_covered": event.overdraft_covered,
    }


def _usage_charged(event: credit_events.UsageCharged) -> Data:
    return {
        "message_source": event.source,
        "run_id": event.run_id,
        "usage_type": event.usage_type.value,
        "photos": event.photos,
        "photos_settled": event.settled,
        "ai_search": event.ai_search,
        "rate_millionths": event.rate_millionths,
        "credits": event.credits,
        "credits_from_hold": event.from_hold,
        "draws": [{"lot": allocation.lot, "credits": allocation.credits} for allocation in event.draws],
        "overdraft": event.overdraft,
        "event_id": event.event_id,
        "occurred_at": in_utc(event.occurred_at),
        "day": iso_day(event.day),
        "hold_id": event.hold_id,
    }


def _charge_refunded(event: credit_events.ChargeRefunded) -> Data:
    return {
        "charge_version": event.charge,
        "credits": event.credits,
        "returned": [
            {"lot": lot.number, "kind": _LOT_KINDS[lot.kind], "size": lot.size, "credits": lot.remaining}
            for lot in event.returned
        ],
        "overdraft_covered": event.overdraft_covered,
        "run_id": event.run_id,
        "event_id": event.event_id,
    }


def _purchase_refunded(event: credit_events.PurchaseRefunded) -> Data:
    return {
        "purchase_version": event.purchase,
        "credits": event.credits,
        "payment_id": event.payment_id,
        "refund_id": event.refund_id,
        "amount_minor": event.amount_minor,
        "tax_minor": event.tax_minor,
        "currency": event.currency.value,
    }


def _purchase_refund_reversed(event: credit_events.PurchaseRefundReversed) -> Data:
    return {
        "purchase_version": event.purchase,
        "credits": event.credits,
        "payment_id": event.payment_id,
        "refund_id": event.refund_id,
        "overdraft_covered": event.overdraft_covered,
    }


def _price_changed(event: credit_events.PriceChanged) -> Data:
    return {"price_millionths": event.price_millionths}


def _plan_changed(event: credit_events.PlanChanged) -> Data:
    return {
        "plan": event.plan.value,
        "expires_at": None if event.expires_at is None else in_utc(event.expires_at),
    }


def _time_zone_changed(event: credit_events.TimeZoneChanged) -> Data:
    return {"time_zone": event.time_zone}


def _hold_placed(event: credit_events.HoldPlaced) -> Data:
    request = event.request
    return {
        "hold_id": event.hold_id,
        "run_id": request.run_id,
        "credits": event.credits,
        "credits_asked": request.credits,
        "mode": request.mode.value,
        "usage_type": None if request.usage_type is None else request.usage_type.value,
        "photos": request.photos,
        "ai_search": request.ai_search,
        "event_id": request.event_id,
        "user": request.user,
        "expires_at": in_utc(event.expires_at),
    }


def _hold_settled(event: credit_events.HoldSettled) -> Data:
    return {
        "hold_id": event.hold_id,
        "run_id": event.run_id,
        "usage_type": None if event.usage_type is None else event.usage_type.value,
        "photos": event.photos,
        "photos_ahead": event.unreported_photos,
        "credits_released": event.released,
    }


def _hold_ended(event: credit_events.HoldReleased | credit_events.HoldExpired) -> Data:
    return {"hold_id": event.hold_id, "run_id": event.run_id, "credits_released": event.released}


def _low_balance_threshold_set(event: credit_events.LowBalanceThresholdSet) -> Data:
    return {"threshold": event.threshold}


def _balance_went_low(event: credit_events.BalanceWentLow) -> Data:
    return {"available": event.available, "threshold": event.threshold}


def _zero_crossed(event: credit_events.CreditsExhausted | credit_events.CreditsReplenished) -> Data:
    return {"available": event.available}


CREDIT_MAPPINGS: Final[PublicMappings] = {
    credit_events.OrganisationOpened: PublicMapping(
        "credit_ledger.organisation_opened.v1", _organisation_opened
    ),
    credit_events.CreditsGranted: PublicMapping("credit_ledger.credits_granted.v1", _credits_granted),
    credit_events.CreditsPurchased: PublicMapping("credit_ledger.credits_purchased.v1", _credits_purchased),
    credit_events.UsageCharged: PublicMapping("credit_ledger.usage_charged.v1", _usage_charged),
    credit_events.ChargeRefunded: PublicMapping("credit_ledger.charge_refunded.v1", _charge_refunded),
    credit_events.PurchaseRefunded: PublicMapping("credit_ledger.purchase_refunded.v1", _purchase_refunded),
    credit_events.PurchaseRefundReversed: PublicMapping(
        "credit_ledger.purchase_refund_reversed.v1", _purchase_refund_reversed
    ),
    credit_events.PriceChanged: PublicMapping("credit_ledger.price_changed.v1", _price_changed),
    credit_events.PlanChanged: PublicMapping("credit_ledger.plan_changed.v1", _plan_changed),
    credit_events.TimeZoneChanged: PublicMapping("credit_ledger.time_zone_changed.v1", _time_zone_changed),
    credit_events.HoldPlaced: PublicMapping("credit_ledger.hold_placed.v1", _hold_placed),
    credit_events.HoldSettled: PublicMapping("credit_ledger.hold_settled.v1", _hold_settled),
    credit_events.HoldReleased: PublicMapping("credit_ledger.hold_released.v1", _hold_ended),
    credit_events.HoldExpired: PublicMapping("credit_ledger.hold_expired.v1", _hold_ended),
    credit_events.LowBalanceThresholdSet: PublicMapping(
        "credit_ledger.low_balance_threshold_set.v1", _low_balance_threshold_set
    ),
    credit_events.BalanceWentLow: PublicMapping("credit_ledger.balance_went_low.v1", _balance_went_low),
    credit_events.CreditsExhausted: PublicMapping("credit_ledger.credits_exhausted.v1", _zero_crossed),
    credit_events.CreditsReplenished: PublicMapping("credit_ledger.credits_replenished.v1", _zero_crossed),
}
