"""The labels of the pages, identical to the user guide."""

from __future__ import annotations

from typing import Final

from api.credits.subscription import PLAN_NAMES
from domain.credits.auto_top_up_events import HeldReason, OffReason
from domain.payments.events import Flag, PaymentKind, PaymentStatus
from domain.pricing.rate_card import UsageType
from projections.credits.read_models import TransactionType
from projections.payments.queries import PaymentRow

USAGE_TYPES: Final = {
    UsageType.PHOTO_PROCESSING: "Photo Processing",
    UsageType.AI_IMAGE_ROTATION: "AI Image Rotation",
    UsageType.WATERMARK_REPROCESS: "Watermark Re-process",
    UsageType.STORE_ORIGINALS: "Store Originals",
}
TRANSACTION_TYPES: Final = {
    TransactionType.USAGE: "Usage",
    TransactionType.PURCHASE: "Purchase",
    TransactionType.FREE_CREDITS: "Free Credits",
    TransactionType.ADMIN_GRANT: "Admin Grant",
    TransactionType.REFUND: "Refund",
    TransactionType.PURCHASE_REFUND: "Purchase Refund",
}
PLANS: Final = PLAN_NAMES
GATEWAYS: Final = {"razorpay": "Razorpay", "payglocal": "PayGlocal", "sandbox": "Sandbox"}
PAYMENT_KINDS: Final = {
    PaymentKind.CREDITS: "Credits",
    PaymentKind.PRO: "Pro Subscription",
    PaymentKind.CUSTOM: "Custom Payment",
}
PAYMENT_STATUSES: Final = {
    PaymentStatus.CREATED: ("Pending", "warn"),
    PaymentStatus.PENDING: ("Pending", "warn"),
    PaymentStatus.COMPLETED: ("Completed", "good"),
    PaymentStatus.FAILED: ("Failed", "bad"),
    PaymentStatus.ABANDONED: ("Abandoned", ""),
    PaymentStatus.REFUNDED: ("Refunded", "accent"),
}
"""Labels, and the colours of their badges."""
FLAGS: Final = {
    Flag.AMOUNT_DIFFERS: "the paid amount differs from the requested amount",
    Flag.PAID_TWICE: "it was paid twice",
    Flag.ALREADY_PRO: "the organisation already had a Pro Subscription",
    Flag.CREDITS_RECORDED_BEFORE: "its credits were already recorded",
    Flag.REFUND_UNKNOWN: "the gateway refunded more money than was requested",
    Flag.REFUND_REFUSED: "the gateway refused the refund",
}
REFUND_EXPLANATIONS: Final = {
    Flag.AMOUNT_DIFFERS: "This money bought nothing and is refunded to the payer.",
    Flag.PAID_TWICE: "The second payment is refunded to the payer.",
}
"""What happens to money that was paid and bought nothing."""
REASONS: Final = {
    "CUSTOMER_CANCELLED": "cancelled by the payer",
    "payment_cancelled": "cancelled by the payer",
    "payment_failed": "the bank refused it",
    "failed": "the gateway refused it",
    "amount_differs": "the paid amount differs from the requested amount",
    "CARD_NOT_KEPT": "the gateway no longer stores the card",
}
"""Why a payment failed or was abandoned, by code of a gateway or of the ledger."""
TOP_UP_PAUSE_REASONS: Final = {
    HeldReason.LIMIT_REACHED: "Your limit of {per_day} auto top-ups per day is reached. Auto top-up continues"
    " tomorrow. You can purchase credits now, or raise the limit.",
    HeldReason.PAYMENT_FAILED: "The card was declined. Auto top-up tries again tomorrow. You can purchase"
    " credits now.",
    HeldReason.TOO_SMALL: "The last top-up was too small to raise your credits above the threshold. Increase"
    " the credits per top-up, or purchase credits now.",
}
"""Why auto top-up is paused today."""
TOP_UP_OFF_REASONS: Final = {
    OffReason.ASKED: "",
    OffReason.PAYMENTS_FAILED: "The card was declined three times, on three days. Switch auto top-up on again"
    " with another card.",
    OffReason.PRICE_ROSE: "The credits now cost more than you agreed to. Switch auto top-up on again at the"
    " new price.",
    OffReason.NOT_FOR_SALE: "This number of credits can no longer be purchased automatically.",
}
"""Why auto top-up was switched off."""
WARNINGS: Final = {
    UsageType.WATERMARK_REPROCESS: "Re-processing the watermark charges 10 % of the photos again. Check the"
    " watermark on a few photos before you process all of them.",
    UsageType.STORE_ORIGINALS: "Storing originals adds to usage on every upload. Switch it off for events"
    " that do not sell originals.",
}


def payment_status(payment: PaymentRow) -> tuple[str, str]:
    """Return the label of a payment's status, and the colour of its badge."""
    name, colour = PAYMENT_STATUSES[payment.status]
    is_part = payment.status is PaymentStatus.REFUNDED and payment.refunded_minor < payment.total_minor
    return ("Partly refunded" if is_part else name), colour


def usage_types(types: list[UsageType]) -> str:
    """Return the usage types of a run as text."""
    return ", ".join(USAGE_TYPES[each] for each in types)


def reason(code: str) -> str:
    """Return the text of a reason code. A code without a text is only made readable."""
    return REASONS.get(code, code.replace("_", " ").lower())


def gateway(name: str) -> str:
    """Return the display name of a gateway."""
    return GATEWAYS.get(name, name)
