"""The catalogue of stored facts: every topic, its type, and how older versions become today's.

A topic is written once and never changes: `name.vN`. Appending a field with a default keeps the topic;
any other change gets a new one, and the old topic stays here with the function that lifts its facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from domain import audit_facts, facts, invoice_facts, payment_facts, top_up_facts
from domain.aggregate import Fact
from domain.errors import UnknownEventType
from domain.organisation import OrganisationSnapshot

FactType = type[Any]


class Superseded(msgspec.Struct, frozen=True):
    """A topic no longer written: its stored shape, and the step to a fact of a current topic."""

    shape: FactType
    lift: Callable[[Any], Fact]


ORGANISATION: Final[Mapping[str, FactType]] = {
    "organisation_opened.v1": facts.OrganisationOpened,
    "credits_granted.v1": facts.CreditsGranted,
    "credits_purchased.v1": facts.CreditsPurchased,
    "usage_charged.v1": facts.UsageCharged,
    "charge_refunded.v1": facts.ChargeRefunded,
    "purchase_refunded.v1": facts.PurchaseRefunded,
    "purchase_refund_reversed.v1": facts.PurchaseRefundReversed,
    "price_changed.v1": facts.PriceChanged,
    "plan_changed.v1": facts.PlanChanged,
    "time_zone_changed.v1": facts.TimeZoneChanged,
    "hold_placed.v1": facts.HoldPlaced,
    "hold_settled.v1": facts.HoldSettled,
    "hold_released.v1": facts.HoldReleased,
    "hold_expired.v1": facts.HoldExpired,
    "low_balance_threshold_set.v1": facts.LowBalanceThresholdSet,
    "balance_went_low.v1": facts.BalanceWentLow,
    "credits_exhausted.v1": facts.CreditsExhausted,
    "credits_replenished.v1": facts.CreditsReplenished,
    "auto_top_up_switched_on.v1": top_up_facts.AutoTopUpSwitchedOn,
    "auto_top_up_changed.v1": top_up_facts.AutoTopUpChanged,
    "auto_top_up_switched_off.v1": top_up_facts.AutoTopUpSwitchedOff,
    "auto_top_up_begun.v1": top_up_facts.AutoTopUpBegun,
    "auto_top_up_held.v1": top_up_facts.AutoTopUpHeld,
    "api_key_issued.v1": audit_facts.ApiKeyIssued,
    "api_key_revoked.v1": audit_facts.ApiKeyRevoked,
    "webhook_endpoint_added.v1": audit_facts.WebhookEndpointAdded,
    "webhook_endpoint_removed.v1": audit_facts.WebhookEndpointRemoved,
    "webhook_secret_rotated.v1": audit_facts.WebhookSecretRotated,
    "webhook_endpoint_disabled.v1": audit_facts.WebhookEndpointDisabled,
    "webhook_endpoint_enabled.v1": audit_facts.WebhookEndpointEnabled,
    "billing_details_changed.v1": audit_facts.BillingDetailsChanged,
}
PAYMENT: Final[Mapping[str, FactType]] = {
    "payment_requested.v1": payment_facts.PaymentRequested,
    "payment_ordered.v1": payment_facts.PaymentOrdered,
    "payment_completed.v1": payment_facts.PaymentCompleted,
    "payment_failed.v1": payment_facts.PaymentFailed,
    "payment_abandoned.v1": payment_facts.PaymentAbandoned,
    "payment_flagged.v1": payment_facts.PaymentFlagged,
    "payment_refund_requested.v1": payment_facts.PaymentRefundRequested,
    "payment_refunded.v1": payment_facts.PaymentRefunded,
    "payment_refund_failed.v1": payment_facts.PaymentRefundFailed,
    "payment_flag_settled.v1": payment_facts.PaymentFlagSettled,
    "payment_attempt_refund_requested.v1": payment_facts.AttemptRefundRequested,
    "payment_attempt_refunded.v1": payment_facts.AttemptRefunded,
    "payment_attempt_refund_failed.v1": payment_facts.AttemptRefundFailed,
}
INVOICE: Final[Mapping[str, FactType]] = {
    "invoice_issued.v1": invoice_facts.InvoiceIssued,
    "credit_note_issued.v1": invoice_facts.CreditNoteIssued,
}
SNAPSHOTS: Final[Mapping[str, FactType]] = {"organisation_snapshot.v1": OrganisationSnapshot}

CURRENT: Final[Mapping[str, FactType]] = {**ORGANISATION, **PAYMENT, **INVOICE, **SNAPSHOTS}

ORGANISATION_FACTS: Final[frozenset[FactType]] = frozenset(ORGANISATION.values())
"""What the histories of organisations consist of; their readers skip everything else.

The facts of every other aggregate have an `organisation_id`: the organisation they are about.
"""

TOPICS_BESIDE_ORGANISATIONS: Final[frozenset[str]] = (
    frozenset(CURRENT) - ORGANISATION.keys() - SNAPSHOTS.keys()
)
"""Topics of events that are in the log, and in no history of an organisation."""

SUPERSEDED: Final[Mapping[str, Superseded]] = {}


class FactCodec:
    """Turns facts into stored bytes (a JSON array of their fields) and back."""

    def __init__(
        self,
        current: Mapping[str, FactType] = CURRENT,
        superseded: Mapping[str, Superseded] = SUPERSEDED,
    ) -> None:
        self.encode: Callable[[Fact], bytes] = msgspec.json.Encoder().encode
        self.topic_of: Mapping[FactType, str] = {shape: topic for topic, shape in current.items()}
        self.decoders: Mapping[str, Callable[[bytes], Fact]] = {
            **{topic: msgspec.json.Decoder(shape).decode for topic, shape in current.items()},
            **{topic: _lifting(old) for topic, old in superseded.items()},
        }

    def decode(self, topic: str, state: bytes) -> Fact:
        """Return the fact of a stored row.

        Raises:
            UnknownEventType: the topic is not in the catalogue.
        """
        decode = self.decoders.get(topic)
        if decode is None:
            raise UnknownEventType(f"no stored event has the topic {topic!r}", topic=topic)
        return decode(state)


def _lifting(old: Superseded) -> Callable[[bytes], Fact]:
    decode = msgspec.json.Decoder(old.shape).decode
    lift = old.lift
    return lambda state: lift(decode(state))
