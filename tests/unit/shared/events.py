"""One event per topic, equal to its first golden line in `tests/contract/stored_events.tsv`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Final

import msgspec

from domain.credits import audit_events, auto_top_up_events
from domain.credits import events as credit_events
from domain.credits.auto_top_up import AutoTopUp, TopUpAttempt, TopUpTerms
from domain.credits.auto_top_up_events import HeldReason, OffReason
from domain.credits.holds import Hold, HoldMode, HoldRequest, Settlement
from domain.credits.lots import Lot, LotAllocation, LotKind
from domain.credits.organisation_state import OrganisationSnapshot
from domain.credits.run_totals import RunTotal
from domain.invoicing import events as invoice_events
from domain.payments import events as payment_events
from domain.pricing import plans
from domain.pricing.rate_card import UsageType
from domain.shared.aggregate import DomainEvent
from domain.shared.money import Currency

_RECORDED_AT = datetime(2026, 12, 31, 18, 30, 0, 250_000, tzinfo=UTC)
_OCCURRED_AT = datetime(2026, 12, 31, 18, 29, 59, tzinfo=UTC)
_OF_DOCUMENT = ("payment-1", 150_000, 27_000, Currency.INR, "5f" * 32)
_OF_PAYMENT = (_RECORDED_AT, "u-1", "request-13", "org-4711", "payment-1")

HOLD_REQUEST: Final = HoldRequest(
    run_id="run-89",
    credits=500,
    mode=HoldMode.UP_TO,
    usage_type=UsageType.PHOTO_PROCESSING,
    photos=500,
    ai_search=True,
    event_id=1042,
    event_name="City Marathon 2026",
    user="u-17",
)

EVENTS: Final[Mapping[str, DomainEvent]] = {
    "organisation_opened.v1": credit_events.OrganisationOpened(
        recorded_at=_RECORDED_AT,
        actor="u-1",
        cause="request-1",
        organisation_id="org-4711",
        time_zone="Asia/Kolkata",
        currency=Currency.INR,
        price_millionths=1_500_000,
        plan=plans.Plan.TRIAL,
    ),
    "credits_granted.v1": credit_events.CreditsGranted(
        recorded_at=_RECORDED_AT,
        actor=None,
        cause="request-2",
        credits=200,
        kind=credit_events.GrantKind.TRIAL,
        reason="trial",
        overdraft_covered=0,
    ),
    "credits_purchased.v1": credit_events.CreditsPurchased(
        recorded_at=_RECORDED_AT,
        actor="u-1",
        cause="request-3",
        credits=1_000,
        payment_id="pay-1",
        order_id="order-1",
        gateway="razorpay",
        unit_price_millionths=1_500_000,
        amount_minor=150_000,
        tax_minor=27_000,
        currency=Currency.INR,
        overdraft_covered=50,
    ),
    "usage_charged.v1": credit_events.UsageCharged(
        recorded_at=_RECORDED_AT,
        actor="u-17",
        cause="0198f0c2-7a3b-7c4d-8e5f-0123456789ab",
        source="/photo-processing/worker-7",
        run_id="run-88",
        usage_type=UsageType.WATERMARK_REPROCESS,
        photos=5_000,
        ai_search=True,
        rate_millionths=100_000,
        credits=500,
        draws=(LotAllocation(lot=2, credits=200), LotAllocation(lot=3, credits=290)),
        overdraft=10,
        event_id=1042,
        event_name="Médaille d'or 🥇",
        occurred_at=_OCCURRED_AT,
        day=date(2026, 12, 31),
        hold_id=None,
    ),
    "charge_refunded.v1": credit_events.ChargeRefunded(
        recorded_at=_RECORDED_AT,
        actor="staff-3",
        cause="request-4",
        charge=5,
        credits=120,
        returned=(Lot(kind=LotKind.PAID, number=3, size=950, remaining=110),),
        overdraft_covered=10,
        reason="photos were blurred",
        run_id="run-88",
        event_id=1042,
        event_name="City Marathon 2026",
    ),
    "purchase_refunded.v1": credit_events.PurchaseRefunded(
        recorded_at=_RECORDED_AT,
        actor="staff-3",
        cause="request-14",
        purchase=3,
        taken=Lot(LotKind.PAID, 3, 950, 400),
        payment_id="payment-1",
        refund_id="refund-1",
        amount_minor=60_000,
        tax_minor=10_800,
        currency=Currency.INR,
    ),
    "purchase_refund_reversed.v1": credit_events.PurchaseRefundReversed(
        recorded_at=_RECORDED_AT,
        actor=None,
        cause="request-15",
        purchase=3,
        taken=Lot(LotKind.PAID, 3, 950, 400),
        payment_id="payment-1",
        refund_id="refund-1",
        overdraft_covered=10,
    ),
    "price_changed.v1": credit_events.PriceChanged(
        recorded_at=_RECORDED_AT, actor="staff-3", cause="request-5", price_millionths=15_000
    ),
    "plan_changed.v1": credit_events.PlanChanged(
        recorded_at=_RECORDED_AT,
        actor="staff-3",
        cause="request-6",
        plan=plans.Plan.PRO,
        expires_at=datetime(2027, 12, 31, 18, 30, tzinfo=UTC),
    ),
    "time_zone_changed.v1": credit_events.TimeZoneChanged(
        recorded_at=_RECORDED_AT, actor="u-1", cause="request-7", time_zone="America/New_York"
    ),
    "hold_placed.v1": credit_events.HoldPlaced(
        recorded_at=_RECORDED_AT,
        actor=None,
        cause="request-8",
        hold_id="hold-8",
        request=HOLD_REQUEST,
        credits=400,
        expires_at=datetime(2026, 12, 31, 19, 30, tzinfo=UTC),
    ),
    "hold_settled.v1": credit_events.HoldSettled(
        recorded_at=_RECORDED_AT,
        actor=None,
        cause="request-9",
        hold_id="hold-8",
        run_id="run-89",
        usage_type=UsageType.PHOTO_PROCESSING,
        photos=380,
        unreported_photos=30,
        released=20,
    ),
    "hold_released.v1": credit_events.HoldReleased(
        recorded_at=_RECORDED_AT,
        actor=None,
        cause="request-10",
        hold_id="hold-8",
        run_id="run-89",
        released=400,
    ),
    "hold_expired.v1": credit_events.HoldExpired(
        recorded_at=_RECORDED_AT,
        actor=None,
        cause="lapse",
        hold_id="hold-8",
        run_id="run-89",
        released=400,
    ),
    "low_balance_threshold_set.v1": credit_events.LowBalanceThresholdSet(
        recorded_at=_RECORDED_AT, actor="u-1", cause="request-11", threshold=500
    ),
    "balance_went_low.v1": credit_events.BalanceWentLow(
        recorded_at=_RECORDED_AT, actor="u-17", cause="message-1", available=499, threshold=500
    ),
    "credits_exhausted.v1": credit_events.CreditsExhausted(
        recorded_at=_RECORDED_AT, actor="u-17", cause="message-2", available=-3
    ),
    "credits_replenished.v1": credit_events.CreditsReplenished(
        recorded_at=_RECORDED_AT, actor="staff-3", cause="request-12", available=97
    ),
    "auto_top_up_switched_on.v1": auto_top_up_events.AutoTopUpSwitchedOn(
        recorded_at=_RECORDED_AT,
        actor="u-1",
        cause="request-17",
        credits=1_000,
        threshold=200,
        per_day=2,
        payment_id="payment-1",
        amount_minor_max=177_000,
    ),
    "auto_top_up_changed.v1": auto_top_up_events.AutoTopUpChanged(
        recorded_at=_RECORDED_AT, actor="u-1", cause="request-18", credits=1_000, threshold=300, per_day=3
    ),
    "auto_top_up_switched_off.v1": auto_top_up_events.AutoTopUpSwitchedOff(
        recorded_at=_RECORDED_AT, actor="u-1", cause="request-19", reason=OffReason.ASKED
    ),
    "auto_top_up_begun.v1": auto_top_up_events.AutoTopUpBegun(
        recorded_at=_RECORDED_AT,
        actor=None,
        cause="auto-top-up",
        payment_id="top-1",
        credits=1_000,
        day=date(2027, 1, 1),
        number=1,
        failures=0,
    ),
    "auto_top_up_held.v1": auto_top_up_events.AutoTopUpHeld(
        recorded_at=_RECORDED_AT,
        actor=None,
        cause="auto-top-up",
        reason=HeldReason.LIMIT_REACHED,
        day=date(2027, 1, 1),
        per_day=2,
    ),
    "api_key_issued.v1": audit_events.ApiKeyIssued(
        recorded_at=_RECORDED_AT, actor="u-1", cause="request-13", key_id="0f3a9c5d7e21"
    ),
    "api_key_revoked.v1": audit_events.ApiKeyRevoked(
        recorded_at=_RECORDED_AT, actor="staff-3", cause="request-14", key_id="0f3a9c5d7e21"
    ),
    "webhook_endpoint_added.v1": audit_events.WebhookEndpointAdded(
        recorded_at=_RECORDED_AT,
        actor="u-1",
        cause="request-15",
        endpoint_id="whe_0f3a9c5d7e21",
        url_digest="ab" * 32,
    ),
    "webhook_endpoint_removed.v1": audit_events.WebhookEndpointRemoved(
        recorded_at=_RECORDED_AT, actor="u-1", cause="request-16", endpoint_id="whe_0f3a9c5d7e21"
    ),
    "webhook_secret_rotated.v1": audit_events.WebhookSecretRotated(
        recorded_at=_RECORDED_AT, actor="u-1", cause="request-17", endpoint_id="whe_0f3a9c5d7e21"
    ),
    "webhook_endpoint_disabled.v1": audit_events.WebhookEndpointDisabled(
        recorded_at=_RECORDED_AT,
        actor=None,
        cause="webhook-delivery",
        endpoint_id="whe_0f3a9c5d7e21",
        failing_since=datetime(2026, 12, 26, 18, 30, tzinfo=UTC),
    ),
    "webhook_endpoint_enabled.v1": audit_events.WebhookEndpointEnabled(
        recorded_at=_RECORDED_AT, actor="u-1", cause="request-18", endpoint_id="whe_0f3a9c5d7e21"
    ),
    "organisation_snapshot.v1": OrganisationSnapshot(
        recorded_at=_RECORDED_AT,
        organisation_id="org-4711",
        time_zone="Asia/Kolkata",
        currency=Currency.INR,
        price_millionths=1_500_000,
        plan=plans.Plan.PAY_AS_YOU_GO,
        plan_expires_at=None,
        lots=[Lot(LotKind.FREE, 2, 200, 20), Lot(LotKind.PAID, 3, 950, 950)],
        overdraft=0,
        run_totals=[
            (
                ("run-88", UsageType.WATERMARK_REPROCESS, 100_000),
                RunTotal(photos=5_000, credits=500, last_recorded_at=_RECORDED_AT),
            )
        ],
    ),
    "payment_requested.v1": payment_events.PaymentRequested(
        *_OF_PAYMENT,
        kind=payment_events.PaymentKind.PRO,
        gateway="razorpay",
        credits=1_000,
        unit_price_millionths=1_500_000,
        credits_minor=150_000,
        fee_minor=1_000_000,
        amount_minor=1_150_000,
        tax_minor=207_000,
        currency=Currency.INR,
        price_version="2026-01",
        quote_id="quote-1",
    ),
    "payment_ordered.v1": payment_events.PaymentOrdered(*_OF_PAYMENT, "razorpay", "order_1"),
    "payment_completed.v1": payment_events.PaymentCompleted(*_OF_PAYMENT, "pay_1", 4),
    "payment_failed.v1": payment_events.PaymentFailed(*_OF_PAYMENT, "BAD_REQUEST_ERROR"),
    "payment_abandoned.v1": payment_events.PaymentAbandoned(*_OF_PAYMENT, "CUSTOMER_CANCELLED"),
    "payment_flagged.v1": payment_events.PaymentFlagged(
        *_OF_PAYMENT, payment_events.Flag.PAID_TWICE, "pay_2", 1_357_000, "INR"
    ),
    "payment_refund_requested.v1": payment_events.PaymentRefundRequested(
        *_OF_PAYMENT, "refund-1", 400, 60_000, 10_800
    ),
    "payment_refunded.v1": payment_events.PaymentRefunded(*_OF_PAYMENT, "refund-1", "rfnd_1", 400, 70_800),
    "payment_refund_failed.v1": payment_events.PaymentRefundFailed(
        *_OF_PAYMENT, "refund-2", "BAD_REQUEST_ERROR"
    ),
    "payment_flag_settled.v1": payment_events.PaymentFlagSettled(
        *_OF_PAYMENT, payment_events.Flag.PAID_TWICE, "pay_2", 1_357_000, "refund-3"
    ),
    "payment_attempt_refund_requested.v1": payment_events.AttemptRefundRequested(
        *_OF_PAYMENT, "refund-3", "pay_2", 1_357_000, "INR"
    ),
    "payment_attempt_refunded.v1": payment_events.AttemptRefunded(
        *_OF_PAYMENT, "refund-3", "rfnd_3", "pay_2", 1_357_000, "INR"
    ),
    "payment_attempt_refund_failed.v1": payment_events.AttemptRefundFailed(
        *_OF_PAYMENT, "refund-3", "BAD_REQUEST_ERROR"
    ),
    "billing_details_changed.v1": audit_events.BillingDetailsChanged(
        recorded_at=_RECORDED_AT, actor="u-1", cause="request-14", digest="3c" * 32
    ),
    "invoice_issued.v1": invoice_events.InvoiceIssued(
        _RECORDED_AT, None, "request-15", "org-4711", "CL/26-27/000123", 123, *_OF_DOCUMENT
    ),
    "credit_note_issued.v1": invoice_events.CreditNoteIssued(
        _RECORDED_AT,
        None,
        "request-16",
        "org-4711",
        "CLC/26-27/000007",
        7,
        *_OF_DOCUMENT,
        refund_id="refund-1",
        invoice_number="CL/26-27/000123",
    ),
}

SNAPSHOT_WITH_HOLDS: Final = OrganisationSnapshot(
    recorded_at=_RECORDED_AT,
    organisation_id="org-4711",
    time_zone="Asia/Kolkata",
    currency=Currency.INR,
    price_millionths=1_500_000,
    plan=plans.Plan.PAY_AS_YOU_GO,
    plan_expires_at=None,
    lots=[Lot(LotKind.PAID, 3, 950, 950)],
    overdraft=0,
    run_totals=[],
    holds=[
        Hold(
            hold_id="hold-8",
            request=HOLD_REQUEST,
            size=400,
            remaining=50,
            expires_at=datetime(2026, 12, 31, 19, 30, tzinfo=UTC),
            photos={UsageType.PHOTO_PROCESSING: 350},
        )
    ],
    settlements=[Settlement("run-87", UsageType.AI_IMAGE_ROTATION, 12, _RECORDED_AT)],
    low_balance_threshold=500,
)

SNAPSHOT_WITH_TOP_UP: Final = msgspec.structs.replace(
    SNAPSHOT_WITH_HOLDS,
    auto_top_up=AutoTopUp(
        is_on=True,
        terms=TopUpTerms(1_000, 200, 2),
        card_of="payment-1",
        amount_minor_max=177_000,
        attempts=(TopUpAttempt(_RECORDED_AT, date(2027, 1, 1), "Asia/Kolkata"),),
        last_payment_id="top-1",
    ),
)
