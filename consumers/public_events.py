"""What the ledger says of each fact: CloudEvents 1.0, structured, on the events topic.

The public form of a fact has names of its own, so that the stored form may change without it. Fields are only
ever added; anything else is a new type, `credit_ledger.NAME.v2`. What people typed (reasons, names of photo
events) stays in the ledger: ids and references only go out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

import msgspec

from domain import audit_facts, facts, invoice_facts, payment_facts, top_up_facts
from domain.aggregate import Fact
from domain.credits import LotKind
from domain.errors import UnknownEventType

SOURCE: Final = "/credit-ledger"
LIST_MOST: Final = 5_000
"""Entries of a list that are told. All else has bounds: no message is larger than brokers take by default."""

Data = dict[str, Any]


class PublicForm(msgspec.Struct, frozen=True):
    """How a type of facts is told: the CloudEvents type, and what `data` says beyond the common fields."""

    type: str
    fields: Callable[[Any], Data]


class CloudEvent(msgspec.Struct, frozen=True):
    """The envelope. `id` is the stream's UUID and the event's version: the same, however often it is sent."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: str
    data: Data


_encode = msgspec.json.Encoder().encode


def public_event(organisation_id: str, stream: str, version: int, position: int, fact: Fact) -> bytes:
    """Return the message of a fact: `stream` is a UUID, `version` the event's number in it.

    `data` holds `version`, `position` (in the log of all organisations), `actor`, `cause`, `balance_change`
    in credits, and the fields of the type. Times are ISO 8601 in UTC, credits whole numbers.

    Raises:
        UnknownEventType: the fact has no public form.
    """
    form = form_of(fact)
    return _encode(
        CloudEvent(
            specversion="1.0",
            id=f"{stream}/{version}",
            source=SOURCE,
            type=form.type,
            subject=organisation_id,
            time=in_utc(fact.recorded_at),
            datacontenttype="application/json",
            data=public_data(version, position, fact),
        )
    )


def public_data(version: int, position: int, fact: Fact) -> Data:
    """Return what is told of a fact, the common fields first.

    A list of more than `LIST_MOST` entries is empty, and its name is in `left_out`, which only then is there.

    Raises:
        UnknownEventType: the fact has no public form.
    """
    fields = form_of(fact).fields(fact)
    left_out = [name for name, told in fields.items() if isinstance(told, list) and len(told) > LIST_MOST]
    if left_out:
        fields |= {name: [] for name in left_out} | {"left_out": left_out}
    return {
        "version": version,
        "position": position,
        "actor": fact.actor,
        "cause": fact.cause,
        "balance_change": fact.balance_delta,
        **fields,
    }


def form_of(fact: Fact) -> PublicForm:
    """Return how a fact is told.

    Raises:
        UnknownEventType: the fact has no public form.
    """
    form = PUBLIC_FORMS.get(type(fact))
    if form is None:
        raise UnknownEventType(f"{type(fact).__name__} has no public form")
    return form


def _organisation_opened(fact: facts.OrganisationOpened) -> Data:
    return {
        "organisation_id": fact.organisation_id,
        "time_zone": fact.time_zone,
        "currency": fact.currency.value,
        "price_millionths": fact.price_millionths,
        "plan": fact.plan.value,
    }


def _credits_granted(fact: facts.CreditsGranted) -> Data:
    return {"credits": fact.credits, "kind": fact.kind.value, "overdraft_covered": fact.covered}


def _credits_purchased(fact: facts.CreditsPurchased) -> Data:
    return {
        "credits": fact.credits,
        "payment_id": fact.payment_id,
        "order_id": fact.order_id,
        "gateway": fact.gateway,
        "unit_price_millionths": fact.unit_price_millionths,
        "amount_minor": fact.amount_minor,
        "tax_minor": fact.tax_minor,
        "currency": fact.currency.value,
        "overdraft_covered": fact.covered,
    }


def _usage_charged(fact: facts.UsageCharged) -> Data:
    return {
        "message_source": fact.source,
        "run_id": fact.run_id,
        "usage_type": fact.usage_type.value,
        "photos": fact.photos,
        "photos_settled": fact.settled,
        "ai_search": fact.ai_search,
        "rate_millionths": fact.rate_millionths,
        "credits": fact.credits,
        "credits_from_hold": fact.from_hold,
        "draws": [{"lot": portion.lot, "credits": portion.credits} for portion in fact.draws],
        "overdraft": fact.overdraft,
        "event_id": fact.event_id,
        "occurred_at": in_utc(fact.occurred_at),
        "day": _iso_day(fact.day),
        "hold_id": fact.hold_id,
    }


def _charge_refunded(fact: facts.ChargeRefunded) -> Data:
    return {
        "charge_version": fact.charge,
        "credits": fact.credits,
        "returned": [
            {"lot": lot.number, "kind": _LOT_KINDS[lot.kind], "size": lot.size, "credits": lot.remaining}
            for lot in fact.returned
        ],
        "overdraft_covered": fact.covered,
        "run_id": fact.run_id,
        "event_id": fact.event_id,
    }


def _purchase_refunded(fact: facts.PurchaseRefunded) -> Data:
    return {
        "purchase_version": fact.purchase,
        "credits": fact.credits,
        "payment_id": fact.payment_id,
        "refund_id": fact.refund_id,
        "amount_minor": fact.amount_minor,
        "tax_minor": fact.tax_minor,
        "currency": fact.currency.value,
    }


def _purchase_refund_reversed(fact: facts.PurchaseRefundReversed) -> Data:
    return {
        "purchase_version": fact.purchase,
        "credits": fact.credits,
        "payment_id": fact.payment_id,
        "refund_id": fact.refund_id,
        "overdraft_covered": fact.covered,
    }


def _price_changed(fact: facts.PriceChanged) -> Data:
    return {"price_millionths": fact.price_millionths}


def _plan_changed(fact: facts.PlanChanged) -> Data:
    return {
        "plan": fact.plan.value,
        "expires_at": None if fact.expires_at is None else in_utc(fact.expires_at),
    }


def _time_zone_changed(fact: facts.TimeZoneChanged) -> Data:
    return {"time_zone": fact.time_zone}


def _hold_placed(fact: facts.HoldPlaced) -> Data:
    request = fact.request
    return {
        "hold_id": fact.hold_id,
        "run_id": request.run_id,
        "credits": fact.credits,
        "credits_asked": request.credits,
        "mode": request.mode.value,
        "usage_type": None if request.usage_type is None else request.usage_type.value,
        "photos": request.photos,
        "ai_search": request.ai_search,
        "event_id": request.event_id,
        "user": request.user,
        "expires_at": in_utc(fact.expires_at),
    }


def _hold_settled(fact: facts.HoldSettled) -> Data:
    return {
        "hold_id": fact.hold_id,
        "run_id": fact.run_id,
        "usage_type": None if fact.usage_type is None else fact.usage_type.value,
        "photos": fact.photos,
        "photos_ahead": fact.ahead,
        "credits_released": fact.released,
    }


def _hold_ended(fact: facts.HoldReleased | facts.HoldExpired) -> Data:
    return {"hold_id": fact.hold_id, "run_id": fact.run_id, "credits_released": fact.released}


def _low_balance_threshold_set(fact: facts.LowBalanceThresholdSet) -> Data:
    return {"threshold": fact.threshold}


def _billing_details_changed(fact: audit_facts.BillingDetailsChanged) -> Data:
    return {"on_file": fact.digest is not None}


def _balance_went_low(fact: facts.BalanceWentLow) -> Data:
    return {"available": fact.available, "threshold": fact.threshold}


def _zero_crossed(fact: facts.CreditsExhausted | facts.CreditsReplenished) -> Data:
    return {"available": fact.available}


def _auto_top_up_terms(fact: top_up_facts.AutoTopUpChanged | top_up_facts.AutoTopUpSwitchedOn) -> Data:
    return {"credits": fact.credits, "threshold": fact.threshold, "per_day": fact.per_day}


def _auto_top_up_switched_on(fact: top_up_facts.AutoTopUpSwitchedOn) -> Data:
    return {**_auto_top_up_terms(fact), "payment_id": fact.payment_id, "most_minor": fact.most_minor}


def _auto_top_up_switched_off(fact: top_up_facts.AutoTopUpSwitchedOff) -> Data:
    return {"reason": fact.reason.value}


def _auto_top_up_begun(fact: top_up_facts.AutoTopUpBegun) -> Data:
    return {
        "payment_id": fact.payment_id,
        "credits": fact.credits,
        "day": _iso_day(fact.day),
        "number": fact.number,
        "failures": fact.failures,
    }


def _auto_top_up_held(fact: top_up_facts.AutoTopUpHeld) -> Data:
    return {"reason": fact.reason.value, "day": _iso_day(fact.day), "per_day": fact.per_day}


def _api_key(fact: audit_facts.ApiKeyIssued | audit_facts.ApiKeyRevoked) -> Data:
    return {"key_id": fact.key_id}


def _webhook_endpoint_added(fact: audit_facts.WebhookEndpointAdded) -> Data:
    return {"endpoint_id": fact.endpoint_id, "url_digest": fact.url_digest}


def _webhook_endpoint(
    fact: audit_facts.WebhookEndpointRemoved
    | audit_facts.WebhookSecretRotated
    | audit_facts.WebhookEndpointEnabled,
) -> Data:
    return {"endpoint_id": fact.endpoint_id}


def _webhook_endpoint_disabled(fact: audit_facts.WebhookEndpointDisabled) -> Data:
    return {"endpoint_id": fact.endpoint_id, "failing_since": in_utc(fact.failing_since)}


def _payment_requested(fact: payment_facts.PaymentRequested) -> Data:
    return {
        "payment_id": fact.payment_id,
        "kind": fact.kind.value,
        "gateway": fact.gateway,
        "credits": fact.credits,
        "unit_price_millionths": fact.unit_price_millionths,
        "credits_minor": fact.credits_minor,
        "fee_minor": fact.fee_minor,
        "amount_minor": fact.amount_minor,
        "tax_minor": fact.tax_minor,
        "currency": fact.currency.value,
        "price_version": fact.price_version,
        "quote_id": fact.quote_id,
        **({} if fact.charged_to is None else {"charged_to": fact.charged_to}),
    }


def _payment_ordered(fact: payment_facts.PaymentOrdered) -> Data:
    return {"payment_id": fact.payment_id, "gateway": fact.gateway, "order_id": fact.order_id}


def _payment_completed(fact: payment_facts.PaymentCompleted) -> Data:
    return {
        "payment_id": fact.payment_id,
        "gateway_payment_id": fact.gateway_payment_id,
        "purchase_version": fact.purchase,
    }


def _payment_ended(fact: payment_facts.PaymentFailed | payment_facts.PaymentAbandoned) -> Data:
    return {"payment_id": fact.payment_id, "reason": fact.reason}


def _payment_flagged(fact: payment_facts.PaymentFlagged) -> Data:
    return {
        "payment_id": fact.payment_id,
        "flag": fact.flag.value,
        "gateway_payment_id": fact.gateway_payment_id,
        "amount_minor": fact.amount_minor,
        "currency": fact.currency,
    }


def _payment_refund_requested(fact: payment_facts.PaymentRefundRequested) -> Data:
    return {
        "payment_id": fact.payment_id,
        "refund_id": fact.refund_id,
        "credits": fact.credits,
        "amount_minor": fact.amount_minor,
        "tax_minor": fact.tax_minor,
    }


def _payment_refunded(fact: payment_facts.PaymentRefunded) -> Data:
    return {
        "payment_id": fact.payment_id,
        "refund_id": fact.refund_id,
        "gateway_refund_id": fact.gateway_refund_id,
        "credits": fact.credits,
        "total_minor": fact.total_minor,
    }


def _payment_refund_failed(
    fact: payment_facts.PaymentRefundFailed | payment_facts.AttemptRefundFailed,
) -> Data:
    return {"payment_id": fact.payment_id, "refund_id": fact.refund_id, "reason": fact.reason}


def _payment_flag_settled(fact: payment_facts.PaymentFlagSettled) -> Data:
    return {
        "payment_id": fact.payment_id,
        "flag": fact.flag.value,
        "gateway_payment_id": fact.gateway_payment_id,
        "amount_minor": fact.amount_minor,
        "refund_id": fact.refund_id,
    }


def _attempt_refund_requested(fact: payment_facts.AttemptRefundRequested) -> Data:
    return {
        "payment_id": fact.payment_id,
        "refund_id": fact.refund_id,
        "gateway_payment_id": fact.gateway_payment_id,
        "amount_minor": fact.amount_minor,
        "currency": fact.currency,
    }


def _attempt_refunded(fact: payment_facts.AttemptRefunded) -> Data:
    return {
        "payment_id": fact.payment_id,
        "refund_id": fact.refund_id,
        "gateway_refund_id": fact.gateway_refund_id,
        "gateway_payment_id": fact.gateway_payment_id,
        "amount_minor": fact.amount_minor,
        "currency": fact.currency,
    }


def _invoice_issued(fact: invoice_facts.InvoiceIssued | invoice_facts.CreditNoteIssued) -> Data:
    return {
        "number": fact.number,
        "payment_id": fact.payment_id,
        "amount_minor": fact.amount_minor,
        "tax_minor": fact.tax_minor,
        "currency": fact.currency.value,
        "digest": fact.digest,
    }


def _credit_note_issued(fact: invoice_facts.CreditNoteIssued) -> Data:
    return {**_invoice_issued(fact), "refund_id": fact.refund_id, "invoice_number": fact.invoice_number}


_LOT_KINDS: Final = {LotKind.FREE: "free", LotKind.PAID: "paid"}

PUBLIC_FORMS: Final[Mapping[type[Any], PublicForm]] = {
    facts.OrganisationOpened: PublicForm("credit_ledger.organisation_opened.v1", _organisation_opened),
    facts.CreditsGranted: PublicForm("credit_ledger.credits_granted.v1", _credits_granted),
    facts.CreditsPurchased: PublicForm("credit_ledger.credits_purchased.v1", _credits_purchased),
    facts.UsageCharged: PublicForm("credit_ledger.usage_charged.v1", _usage_charged),
    facts.ChargeRefunded: PublicForm("credit_ledger.charge_refunded.v1", _charge_refunded),
    facts.PurchaseRefunded: PublicForm("credit_ledger.purchase_refunded.v1", _purchase_refunded),
    facts.PurchaseRefundReversed: PublicForm(
        "credit_ledger.purchase_refund_reversed.v1", _purchase_refund_reversed
    ),
    facts.PriceChanged: PublicForm("credit_ledger.price_changed.v1", _price_changed),
    facts.PlanChanged: PublicForm("credit_ledger.plan_changed.v1", _plan_changed),
    facts.TimeZoneChanged: PublicForm("credit_ledger.time_zone_changed.v1", _time_zone_changed),
    facts.HoldPlaced: PublicForm("credit_ledger.hold_placed.v1", _hold_placed),
    facts.HoldSettled: PublicForm("credit_ledger.hold_settled.v1", _hold_settled),
    facts.HoldReleased: PublicForm("credit_ledger.hold_released.v1", _hold_ended),
    facts.HoldExpired: PublicForm("credit_ledger.hold_expired.v1", _hold_ended),
    facts.LowBalanceThresholdSet: PublicForm(
        "credit_ledger.low_balance_threshold_set.v1", _low_balance_threshold_set
    ),
    audit_facts.BillingDetailsChanged: PublicForm(
        "credit_ledger.billing_details_changed.v1", _billing_details_changed
    ),
    facts.BalanceWentLow: PublicForm("credit_ledger.balance_went_low.v1", _balance_went_low),
    facts.CreditsExhausted: PublicForm("credit_ledger.credits_exhausted.v1", _zero_crossed),
    facts.CreditsReplenished: PublicForm("credit_ledger.credits_replenished.v1", _zero_crossed),
    top_up_facts.AutoTopUpSwitchedOn: PublicForm(
        "credit_ledger.auto_top_up_switched_on.v1", _auto_top_up_switched_on
    ),
    top_up_facts.AutoTopUpChanged: PublicForm("credit_ledger.auto_top_up_changed.v1", _auto_top_up_terms),
    top_up_facts.AutoTopUpSwitchedOff: PublicForm(
        "credit_ledger.auto_top_up_switched_off.v1", _auto_top_up_switched_off
    ),
    top_up_facts.AutoTopUpBegun: PublicForm("credit_ledger.auto_top_up_begun.v1", _auto_top_up_begun),
    top_up_facts.AutoTopUpHeld: PublicForm("credit_ledger.auto_top_up_held.v1", _auto_top_up_held),
    audit_facts.ApiKeyIssued: PublicForm("credit_ledger.api_key_issued.v1", _api_key),
    audit_facts.ApiKeyRevoked: PublicForm("credit_ledger.api_key_revoked.v1", _api_key),
    audit_facts.WebhookEndpointAdded: PublicForm(
        "credit_ledger.webhook_endpoint_added.v1", _webhook_endpoint_added
    ),
    audit_facts.WebhookEndpointRemoved: PublicForm(
        "credit_ledger.webhook_endpoint_removed.v1", _webhook_endpoint
    ),
    audit_facts.WebhookSecretRotated: PublicForm(
        "credit_ledger.webhook_secret_rotated.v1", _webhook_endpoint
    ),
    audit_facts.WebhookEndpointDisabled: PublicForm(
        "credit_ledger.webhook_endpoint_disabled.v1", _webhook_endpoint_disabled
    ),
    audit_facts.WebhookEndpointEnabled: PublicForm(
        "credit_ledger.webhook_endpoint_enabled.v1", _webhook_endpoint
    ),
    payment_facts.PaymentRequested: PublicForm("credit_ledger.payment_requested.v1", _payment_requested),
    payment_facts.PaymentOrdered: PublicForm("credit_ledger.payment_ordered.v1", _payment_ordered),
    payment_facts.PaymentCompleted: PublicForm("credit_ledger.payment_completed.v1", _payment_completed),
    payment_facts.PaymentFailed: PublicForm("credit_ledger.payment_failed.v1", _payment_ended),
    payment_facts.PaymentAbandoned: PublicForm("credit_ledger.payment_abandoned.v1", _payment_ended),
    payment_facts.PaymentFlagged: PublicForm("credit_ledger.payment_flagged.v1", _payment_flagged),
    payment_facts.PaymentRefundRequested: PublicForm(
        "credit_ledger.payment_refund_requested.v1", _payment_refund_requested
    ),
    payment_facts.PaymentRefunded: PublicForm("credit_ledger.payment_refunded.v1", _payment_refunded),
    payment_facts.PaymentRefundFailed: PublicForm(
        "credit_ledger.payment_refund_failed.v1", _payment_refund_failed
    ),
    payment_facts.PaymentFlagSettled: PublicForm(
        "credit_ledger.payment_flag_settled.v1", _payment_flag_settled
    ),
    payment_facts.AttemptRefundRequested: PublicForm(
        "credit_ledger.payment_attempt_refund_requested.v1", _attempt_refund_requested
    ),
    payment_facts.AttemptRefunded: PublicForm("credit_ledger.payment_attempt_refunded.v1", _attempt_refunded),
    payment_facts.AttemptRefundFailed: PublicForm(
        "credit_ledger.payment_attempt_refund_failed.v1", _payment_refund_failed
    ),
    invoice_facts.InvoiceIssued: PublicForm("credit_ledger.invoice_issued.v1", _invoice_issued),
    invoice_facts.CreditNoteIssued: PublicForm("credit_ledger.credit_note_issued.v1", _credit_note_issued),
}
"""Every fact of `domain.catalogue`; a contract test holds the two together."""


def in_utc(at: datetime) -> datetime:
    """Return the same moment in UTC."""
    return at if at.tzinfo is UTC else at.astimezone(UTC)


def _iso_day(day: date) -> str:
    return day.isoformat()
