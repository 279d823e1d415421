"""What the pages call things, word for word as the user guide does."""

from __future__ import annotations

from typing import Final

from api.credits.subscription import PLAN_NAMES
from domain.credits.auto_top_up import HeldReason, OffReason
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
"""Names, and the colours of their badges."""
FLAGS: Final = {
    Flag.AMOUNT_DIFFERS: "another amount was paid than was asked for",
    Flag.PAID_TWICE: "it was paid twice",
    Flag.ALREADY_PRO: "there was a Pro Subscription already",
    Flag.CREDITS_RECORDED_BEFORE: "its credits had been recorded before",
    Flag.REFUND_UNKNOWN: "more money went back than was asked for",
    Flag.REFUND_REFUSED: "the gateway did not give the money back",
}
REFUND_EXPLANATIONS: Final = {
    Flag.AMOUNT_DIFFERS: "This money bought nothing, and goes back to the payer.",
    Flag.PAID_TWICE: "What was paid again goes back to the payer.",
}
"""What becomes of money that was taken and buys nothing."""
REASONS: Final = {
    "CUSTOMER_CANCELLED": "cancelled by the payer",
    "payment_cancelled": "cancelled by the payer",
    "payment_failed": "the bank refused it",
    "failed": "the gateway refused it",
    "amount_differs": "another amount was paid than was asked for",
    "CARD_NOT_KEPT": "the gateway does not keep the card any more",
}
"""Why a payment ended, where a gateway or we have a code for it."""
TOP_UP_PAUSE_REASONS: Final = {
    HeldReason.LIMIT_REACHED: "Today's {per_day} auto top-ups are all that you allow. It goes on tomorrow;"
    " you can purchase credits yourself, or allow more.",
    HeldReason.PAYMENT_FAILED: "The card was refused. It is tried once more tomorrow; you can purchase"
    " credits yourself.",
    HeldReason.TOO_SMALL: "The last top-up was too small to lift your credits above the threshold. Purchase"
    " more at a time, or purchase credits yourself.",
}
"""Why no more is purchased by itself today."""
TOP_UP_OFF_REASONS: Final = {
    OffReason.ASKED: "",
    OffReason.PAYMENTS_FAILED: "The card was refused three times, on three days. Switch it on again with"
    " another card.",
    OffReason.PRICE_ROSE: "The credits would cost more than you agreed to. Switch it on again at the new"
    " price.",
    OffReason.NOT_FOR_SALE: "So many credits are not for sale this way any more.",
}
"""Why it was switched off."""
WARNINGS: Final = {
    UsageType.WATERMARK_REPROCESS: "Re-processing the watermark charges 10 % of the photos again. Check the"
    " watermark on a few photos before you process all of them.",
    UsageType.STORE_ORIGINALS: "Storing originals adds to usage on every upload. Switch it off for events"
    " that do not sell originals.",
}


def payment_status(payment: PaymentRow) -> tuple[str, str]:
    """Return what the status of a payment is called, and the colour of its badge."""
    name, colour = PAYMENT_STATUSES[payment.status]
    is_part = payment.status is PaymentStatus.REFUNDED and payment.refunded_minor < payment.total_minor
    return ("Partly refunded" if is_part else name), colour


def usage_types(types: list[UsageType]) -> str:
    """Return the usage types of a run as text."""
    return ", ".join(USAGE_TYPES[each] for each in types)


def reason(code: str) -> str:
    """Return why a payment ended; what has no words of its own becomes readable at least."""
    return REASONS.get(code, code.replace("_", " ").lower())


def gateway(name: str) -> str:
    """Return a gateway's own spelling of its name."""
    return GATEWAYS.get(name, name)
