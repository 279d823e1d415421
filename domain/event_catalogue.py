"""The catalogue of stored events: every topic, its type, and how older versions are upcast.

A topic (`name.vN`) never changes once events are stored under it. An appended field with a default keeps the
topic. Any other change needs a new topic; the old topic stays here with the function that upcasts its events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from domain.credits import audit_events, auto_top_up_events
from domain.credits import events as credit_events
from domain.credits.organisation import Organisation
from domain.credits.organisation_state import OrganisationSnapshot
from domain.invoicing import events as invoice_events
from domain.payments import events as payment_events
from domain.payments.payment import Payment
from domain.shared.aggregate import Aggregate, DomainEvent
from domain.shared.errors import UnknownEventType

EventType = type[Any]


class Upcaster(msgspec.Struct, frozen=True):
    """A topic that is no longer written: its stored shape, and the conversion to a current event."""

    event_type: EventType
    upcast: Callable[[Any], DomainEvent]


ORGANISATION_EVENT_TYPES: Final[Mapping[str, EventType]] = {
    "organisation_opened.v1": credit_events.OrganisationOpened,
    "credits_granted.v1": credit_events.CreditsGranted,
    "credits_purchased.v1": credit_events.CreditsPurchased,
    "usage_charged.v1": credit_events.UsageCharged,
    "charge_refunded.v1": credit_events.ChargeRefunded,
    "purchase_refunded.v1": credit_events.PurchaseRefunded,
    "purchase_refund_reversed.v1": credit_events.PurchaseRefundReversed,
    "price_changed.v1": credit_events.PriceChanged,
    "plan_changed.v1": credit_events.PlanChanged,
    "time_zone_changed.v1": credit_events.TimeZoneChanged,
    "hold_placed.v1": credit_events.HoldPlaced,
    "hold_settled.v1": credit_events.HoldSettled,
    "hold_released.v1": credit_events.HoldReleased,
    "hold_expired.v1": credit_events.HoldExpired,
    "low_balance_threshold_set.v1": credit_events.LowBalanceThresholdSet,
    "balance_went_low.v1": credit_events.BalanceWentLow,
    "credits_exhausted.v1": credit_events.CreditsExhausted,
    "credits_replenished.v1": credit_events.CreditsReplenished,
    "auto_top_up_switched_on.v1": auto_top_up_events.AutoTopUpSwitchedOn,
    "auto_top_up_changed.v1": auto_top_up_events.AutoTopUpChanged,
    "auto_top_up_switched_off.v1": auto_top_up_events.AutoTopUpSwitchedOff,
    "auto_top_up_begun.v1": auto_top_up_events.AutoTopUpBegun,
    "auto_top_up_held.v1": auto_top_up_events.AutoTopUpHeld,
    "api_key_issued.v1": audit_events.ApiKeyIssued,
    "api_key_revoked.v1": audit_events.ApiKeyRevoked,
    "webhook_endpoint_added.v1": audit_events.WebhookEndpointAdded,
    "webhook_endpoint_removed.v1": audit_events.WebhookEndpointRemoved,
    "webhook_secret_rotated.v1": audit_events.WebhookSecretRotated,
    "webhook_endpoint_disabled.v1": audit_events.WebhookEndpointDisabled,
    "webhook_endpoint_enabled.v1": audit_events.WebhookEndpointEnabled,
    "billing_details_changed.v1": audit_events.BillingDetailsChanged,
}
PAYMENT_EVENT_TYPES: Final[Mapping[str, EventType]] = {
    "payment_requested.v1": payment_events.PaymentRequested,
    "payment_ordered.v1": payment_events.PaymentOrdered,
    "payment_completed.v1": payment_events.PaymentCompleted,
    "payment_failed.v1": payment_events.PaymentFailed,
    "payment_abandoned.v1": payment_events.PaymentAbandoned,
    "payment_flagged.v1": payment_events.PaymentFlagged,
    "payment_refund_requested.v1": payment_events.PaymentRefundRequested,
    "payment_refunded.v1": payment_events.PaymentRefunded,
    "payment_refund_failed.v1": payment_events.PaymentRefundFailed,
    "payment_flag_settled.v1": payment_events.PaymentFlagSettled,
    "payment_attempt_refund_requested.v1": payment_events.AttemptRefundRequested,
    "payment_attempt_refunded.v1": payment_events.AttemptRefunded,
    "payment_attempt_refund_failed.v1": payment_events.AttemptRefundFailed,
}
INVOICE_EVENT_TYPES: Final[Mapping[str, EventType]] = {
    "invoice_issued.v1": invoice_events.InvoiceIssued,
    "credit_note_issued.v1": invoice_events.CreditNoteIssued,
}
SNAPSHOT_TYPES: Final[Mapping[str, EventType]] = {"organisation_snapshot.v1": OrganisationSnapshot}

CURRENT_TYPES: Final[Mapping[str, EventType]] = {
    **ORGANISATION_EVENT_TYPES,
    **PAYMENT_EVENT_TYPES,
    **INVOICE_EVENT_TYPES,
    **SNAPSHOT_TYPES,
}

ORGANISATION_EVENT_CLASSES: Final[frozenset[EventType]] = frozenset(ORGANISATION_EVENT_TYPES.values())
"""The events in the histories of organisations; readers of these histories skip all others.

The events of every other aggregate have an `organisation_id`: the organisation they are about.
"""

NON_ORGANISATION_TOPICS: Final[frozenset[str]] = (
    frozenset(CURRENT_TYPES) - ORGANISATION_EVENT_TYPES.keys() - SNAPSHOT_TYPES.keys()
)
"""Topics of events in the log that belong to no history of an organisation."""

AGGREGATES: Final[tuple[type[Aggregate], ...]] = (Organisation, Payment)
"""Classes that a repository rebuilds from a history. Importing them registers what these begin with.

A series of invoices is not among them: only its last event is read.
"""

UPCASTERS: Final[Mapping[str, Upcaster]] = {}


class EventCodec:
    """Encodes events as stored bytes (a JSON array of their fields), and decodes them."""

    def __init__(
        self,
        current: Mapping[str, EventType] = CURRENT_TYPES,
        upcasters: Mapping[str, Upcaster] = UPCASTERS,
    ) -> None:
        self.encode: Callable[[DomainEvent], bytes] = msgspec.json.Encoder().encode
        self.topic_of: Mapping[EventType, str] = {event_type: topic for topic, event_type in current.items()}
        self.decoders: Mapping[str, Callable[[bytes], DomainEvent]] = {
            **{topic: msgspec.json.Decoder(event_type).decode for topic, event_type in current.items()},
            **{topic: _upcasting_decoder(old) for topic, old in upcasters.items()},
        }

    def decode(self, topic: str, state: bytes) -> DomainEvent:
        """Return the event of a stored row.

        Raises:
            UnknownEventType: the topic is not in the catalogue.
        """
        decode = self.decoders.get(topic)
        if decode is None:
            raise UnknownEventType(f"no stored event has the topic {topic!r}", topic=topic)
        return decode(state)


def _upcasting_decoder(old: Upcaster) -> Callable[[bytes], DomainEvent]:
    decode = msgspec.json.Decoder(old.event_type).decode
    upcast = old.upcast
    return lambda state: upcast(decode(state))
