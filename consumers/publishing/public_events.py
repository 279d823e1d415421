"""The public form of each event: structured CloudEvents 1.0 on the events topic.

The public form has its own field names, so that the stored form can change independently. Fields may only be
added; any other change needs a new type, `credit_ledger.NAME.v2`. Free text (reasons, names of photo events)
stays in the ledger: only ids and references are published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

import msgspec

from domain.credits import audit_events, auto_top_up_events
from domain.credits import events as credit_events
from domain.credits.lots import LotKind
from domain.invoicing import events as invoice_events
from domain.payments import events as payment_events
from domain.shared.aggregate import DomainEvent
from domain.shared.errors import UnknownEventType

SOURCE: Final = "/credit-ledger"
LIST_MAX: Final = 5_000
"""A longer list is left out, so that no message exceeds the default size limit of brokers."""

Data = dict[str, Any]


class PublicMapping(msgspec.Struct, frozen=True):
    """The public form of an event class: its CloudEvents type, and its own fields of `data`."""

    type: str
    fields: Callable[[Any], Data]


class CloudEvent(msgspec.Struct, frozen=True):
    """The envelope. `id` is the stream's UUID and the event's version, so repeats have the same id."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: str
    data: Data


_encode = msgspec.json.Encoder().encode


def public_event(organisation_id: str, stream: str, version: int, position: int, event: DomainEvent) -> bytes:
    """Return the message of an event. `stream` is a UUID, `version` the event's number in the stream.

    `data` has `version`, `position` (in the log), `actor`, `cause`, `balance_change` in credits, and the
    fields of the type. Times are ISO 8601 in UTC; credits are whole numbers.

    Raises:
        UnknownEventType: the event has no public form.
    """
    mapping = mapping_of(event)
    return _encode(
        CloudEvent(
            specversion="1.0",
            id=f"{stream}/{version}",
            source=SOURCE,
            type=mapping.type,
            subject=organisation_id,
            time=in_utc(event.recorded_at),
            datacontenttype="application/json",
            data=public_data(version, position, event),
        )
    )


def public_data(version: int, position: int, event: DomainEvent) -> Data:
    """Return the `data` of an event, common fields first.

    A list with more than `LIST_MAX` entries is emptied, and `left_out` names it. Otherwise `left_out` is
    absent.

    Raises:
        UnknownEventType: the event has no public form.
    """
    fields = mapping_of(event).fields(event)
    left_out = [name for name, value in fields.items() if isinstance(value, list) and len(value) > LIST_MAX]
    if left_out:
        fields |= {name: [] for name in left_out} | {"left_out": left_out}
    return {
        "version": version,
        "position": position,
        "actor": event.actor,
        "cause": event.cause,
        "balance_change": event.balance_delta,
        **fields,
    }


def mapping_of(event: DomainEvent) -> PublicMapping:
    """Return the public form of an event.

    Raises:
        UnknownEventType: the event has no public form.
    """
    mapping = PUBLIC_MAPPINGS.get(type(event))
    if mapping is None:
        raise UnknownEventType(f"{type(event).__name__} has no public form")
    return mapping


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
        "day": _iso_day(event.day),
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


def _billing_details_changed(event: audit_events.BillingDetailsChanged) -> Data:
    return {"on_file": event.digest is not None}


def _balance_went_low(event: credit_events.BalanceWentLow) -> Data:
    return {"available": event.available, "threshold": event.threshold}


def _zero_crossed(event: credit_events.CreditsExhausted | credit_events.CreditsReplenished) -> Data:
    return {"available": event.available}


def _auto_top_up_terms(
    event: auto_top_up_events.AutoTopUpChanged | auto_top_up_events.AutoTopUpSwitchedOn,
) -> Data:
    return {"credits": event.credits, "threshold": event.threshold, "per_day": event.per_day}


def _auto_top_up_switched_on(event: auto_top_up_events.AutoTopUpSwitchedOn) -> Data:
    return {**_auto_top_up_terms(event), "payment_id": event.payment_id, "most_minor": event.amount_minor_max}


def _auto_top_up_switched_off(event: auto_top_up_events.AutoTopUpSwitchedOff) -> Data:
    return {"reason": event.reason.value}


def _auto_top_up_begun(event: auto_top_up_events.AutoTopUpBegun) -> Data:
    return {
        "payment_id": event.payment_id,
        "credits": event.credits,
        "day": _iso_day(event.day),
        "number": event.number,
        "failures": event.failures,
    }


def _auto_top_up_held(event: auto_top_up_events.AutoTopUpHeld) -> Data:
    return {"reason": event.reason.value, "day": _iso_day(event.day), "per_day": event.per_day}


def _api_key(event: audit_events.ApiKeyIssued | audit_events.ApiKeyRevoked) -> Data:
    return {"key_id": event.key_id}


def _webhook_endpoint_added(event: audit_events.WebhookEndpointAdded) -> Data:
    return {"endpoint_id": event.endpoint_id, "url_digest": event.url_digest}


def _webhook_endpoint(
    event: audit_events.WebhookEndpointRemoved
    | audit_events.WebhookSecretRotated
    | audit_events.WebhookEndpointEnabled,
) -> Data:
    return {"endpoint_id": event.endpoint_id}


def _webhook_endpoint_disabled(event: audit_events.WebhookEndpointDisabled) -> Data:
    return {"endpoint_id": event.endpoint_id, "failing_since": in_utc(event.failing_since)}


def _payment_requested(event: payment_events.PaymentRequested) -> Data:
    return {
        "payment_id": event.payment_id,
        "kind": event.kind.value,
        "gateway": event.gateway,
        "credits": event.credits,
        "unit_price_millionths": event.unit_price_millionths,
        "credits_minor": event.credits_minor,
        "fee_minor": event.fee_minor,
        "amount_minor": event.amount_minor,
        "tax_minor": event.tax_minor,
        "currency": event.currency.value,
        "price_version": event.price_version,
        "quote_id": event.quote_id,
        **({} if event.card_payment_id is None else {"charged_to": event.card_payment_id}),
    }


def _payment_ordered(event: payment_events.PaymentOrdered) -> Data:
    return {"payment_id": event.payment_id, "gateway": event.gateway, "order_id": event.order_id}


def _payment_completed(event: payment_events.PaymentCompleted) -> Data:
    return {
        "payment_id": event.payment_id,
        "gateway_payment_id": event.gateway_payment_id,
        "purchase_version": event.purchase,
    }


def _payment_ended(event: payment_events.PaymentFailed | payment_events.PaymentAbandoned) -> Data:
    return {"payment_id": event.payment_id, "reason": event.reason}


def _payment_flagged(event: payment_events.PaymentFlagged) -> Data:
    return {
        "payment_id": event.payment_id,
        "flag": event.flag.value,
        "gateway_payment_id": event.gateway_payment_id,
        "amount_minor": event.amount_minor,
        "currency": event.currency,
    }


def _payment_refund_requested(event: payment_events.PaymentRefundRequested) -> Data:
    return {
        "payment_id": event.payment_id,
        "refund_id": event.refund_id,
        "credits": event.credits,
        "amount_minor": event.amount_minor,
        "tax_minor": event.tax_minor,
    }


def _payment_refunded(event: payment_events.PaymentRefunded) -> Data:
    return {
        "payment_id": event.payment_id,
        "refund_id": event.refund_id,
        "gateway_refund_id": event.gateway_refund_id,
        "credits": event.credits,
        "total_minor": event.total_minor,
    }


def _payment_refund_failed(
    event: payment_events.PaymentRefundFailed | payment_events.AttemptRefundFailed,
) -> Data:
    return {"payment_id": event.payment_id, "refund_id": event.refund_id, "reason": event.reason}


def _payment_flag_settled(event: payment_events.PaymentFlagSettled) -> Data:
    return {
        "payment_id": event.payment_id,
        "flag": event.flag.value,
        "gateway_payment_id": event.gateway_payment_id,
        "amount_minor": event.amount_minor,
        "refund_id": event.refund_id,
    }


def _attempt_refund_requested(event: payment_events.AttemptRefundRequested) -> Data:
    return {
        "payment_id": event.payment_id,
        "refund_id": event.refund_id,
        "gateway_payment_id": event.gateway_payment_id,
        "amount_minor": event.amount_minor,
        "currency": event.currency,
    }


def _attempt_refunded(event: payment_events.AttemptRefunded) -> Data:
    return {
        "payment_id": event.payment_id,
        "refund_id": event.refund_id,
        "gateway_refund_id": event.gateway_refund_id,
        "gateway_payment_id": event.gateway_payment_id,
        "amount_minor": event.amount_minor,
        "currency": event.currency,
    }


def _invoice_issued(event: invoice_events.InvoiceIssued | invoice_events.CreditNoteIssued) -> Data:
    return {
        "number": event.number,
        "payment_id": event.payment_id,
        "amount_minor": event.amount_minor,
        "tax_minor": event.tax_minor,
        "currency": event.currency.value,
        "digest": event.digest,
    }


def _credit_note_issued(event: invoice_events.CreditNoteIssued) -> Data:
    return {**_invoice_issued(event), "refund_id": event.refund_id, "invoice_number": event.invoice_number}


_LOT_KINDS: Final = {LotKind.FREE: "free", LotKind.PAID: "paid"}

PUBLIC_MAPPINGS: Final[Mapping[type[Any], PublicMapping]] = {
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
    audit_events.BillingDetailsChanged: PublicMapping(
        "credit_ledger.billing_details_changed.v1", _billing_details_changed
    ),
    credit_events.BalanceWentLow: PublicMapping("credit_ledger.balance_went_low.v1", _balance_went_low),
    credit_events.CreditsExhausted: PublicMapping("credit_ledger.credits_exhausted.v1", _zero_crossed),
    credit_events.CreditsReplenished: PublicMapping("credit_ledger.credits_replenished.v1", _zero_crossed),
    auto_top_up_events.AutoTopUpSwitchedOn: PublicMapping(
        "credit_ledger.auto_top_up_switched_on.v1", _auto_top_up_switched_on
    ),
    auto_top_up_events.AutoTopUpChanged: PublicMapping(
        "credit_ledger.auto_top_up_changed.v1", _auto_top_up_terms
    ),
    auto_top_up_events.AutoTopUpSwitchedOff: PublicMapping(
        "credit_ledger.auto_top_up_switched_off.v1", _auto_top_up_switched_off
    ),
    auto_top_up_events.AutoTopUpBegun: PublicMapping(
        "credit_ledger.auto_top_up_begun.v1", _auto_top_up_begun
    ),
    auto_top_up_events.AutoTopUpHeld: PublicMapping("credit_ledger.auto_top_up_held.v1", _auto_top_up_held),
    audit_events.ApiKeyIssued: PublicMapping("credit_ledger.api_key_issued.v1", _api_key),
    audit_events.ApiKeyRevoked: PublicMapping("credit_ledger.api_key_revoked.v1", _api_key),
    audit_events.WebhookEndpointAdded: PublicMapping(
        "credit_ledger.webhook_endpoint_added.v1", _webhook_endpoint_added
    ),
    audit_events.WebhookEndpointRemoved: PublicMapping(
        "credit_ledger.webhook_endpoint_removed.v1", _webhook_endpoint
    ),
    audit_events.WebhookSecretRotated: PublicMapping(
        "credit_ledger.webhook_secret_rotated.v1", _webhook_endpoint
    ),
    audit_events.WebhookEndpointDisabled: PublicMapping(
        "credit_ledger.webhook_endpoint_disabled.v1", _webhook_endpoint_disabled
    ),
    audit_events.WebhookEndpointEnabled: PublicMapping(
        "credit_ledger.webhook_endpoint_enabled.v1", _webhook_endpoint
    ),
    payment_events.PaymentRequested: PublicMapping("credit_ledger.payment_requested.v1", _payment_requested),
    payment_events.PaymentOrdered: PublicMapping("credit_ledger.payment_ordered.v1", _payment_ordered),
    payment_events.PaymentCompleted: PublicMapping("credit_ledger.payment_completed.v1", _payment_completed),
    payment_events.PaymentFailed: PublicMapping("credit_ledger.payment_failed.v1", _payment_ended),
    payment_events.PaymentAbandoned: PublicMapping("credit_ledger.payment_abandoned.v1", _payment_ended),
    payment_events.PaymentFlagged: PublicMapping("credit_ledger.payment_flagged.v1", _payment_flagged),
    payment_events.PaymentRefundRequested: PublicMapping(
        "credit_ledger.payment_refund_requested.v1", _payment_refund_requested
    ),
    payment_events.PaymentRefunded: PublicMapping("credit_ledger.payment_refunded.v1", _payment_refunded),
    payment_events.PaymentRefundFailed: PublicMapping(
        "credit_ledger.payment_refund_failed.v1", _payment_refund_failed
    ),
    payment_events.PaymentFlagSettled: PublicMapping(
        "credit_ledger.payment_flag_settled.v1", _payment_flag_settled
    ),
    payment_events.AttemptRefundRequested: PublicMapping(
        "credit_ledger.payment_attempt_refund_requested.v1", _attempt_refund_requested
    ),
    payment_events.AttemptRefunded: PublicMapping(
        "credit_ledger.payment_attempt_refunded.v1", _attempt_refunded
    ),
    payment_events.AttemptRefundFailed: PublicMapping(
        "credit_ledger.payment_attempt_refund_failed.v1", _payment_refund_failed
    ),
    invoice_events.InvoiceIssued: PublicMapping("credit_ledger.invoice_issued.v1", _invoice_issued),
    invoice_events.CreditNoteIssued: PublicMapping(
        "credit_ledger.credit_note_issued.v1", _credit_note_issued
    ),
}
"""The public forms of all events of `domain.event_catalogue`; a contract test checks that none is missing."""


def in_utc(at: datetime) -> datetime:
    """Return the same time in UTC."""
    return at if at.tzinfo is UTC else at.astimezone(UTC)


def _iso_day(day: date) -> str:
    return day.isoformat()
