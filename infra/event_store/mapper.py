"""Maps events to rows and back: one by one for the library, in bulk as COPY data for the usage path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final, cast
from uuid import UUID

from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import JSONTranscoder, StoredEvent
from eventsourcing.persistence import Mapper as EventMapper

from domain.credits.events import (
    ChargeRefunded,
    CreditsPurchased,
    HoldPlaced,
    PurchaseRefunded,
    UsageCharged,
)
from domain.credits.limits import SETTLEMENT_SOURCE
from domain.event_catalogue import EventCodec
from domain.invoicing.events import CreditNoteIssued, InvoiceIssued
from domain.payments.events import PaymentOrdered, PaymentRequested
from domain.shared.aggregate import DomainEvent, EventEnvelope
from domain.shared.stream_keys import dedupe_key, order_key, purchase_key, quote_key

_COPY_COLUMNS: Final = "originator_id, originator_version, dedupe_key, refers_to, topic, state"
COPY_EVENTS: Final = f"COPY ledger.events ({_COPY_COLUMNS}) FROM STDIN (FORMAT BINARY)"
_FIELD_COUNT: Final = 6
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
# https://www.postgresql.org/docs/current/sql-copy.html: the number of fields, then each as length and bytes.
_START: Final = Struct(">hi16siq").pack  # field count, stream, version
_KEY: Final = Struct(">i16s").pack
_BIGINT: Final = Struct(">iq").pack
_LENGTH: Final = Struct(">i").pack


@dataclass(frozen=True)
class KeyedStoredEvent(StoredEvent):
    """A stored event with two additional columns."""

    dedupe_key: bytes | None = None
    """Unique in the ledger."""
    refers_to: int | None = None
    """For a refund: the version of its charge or purchase."""


class LedgerMapper(EventMapper[UUID]):
    """Maps events to rows: stream, version, topic, and the event's fields as a JSON array."""

    def __init__(self, codec: EventCodec | None = None) -> None:
        super().__init__(JSONTranscoder())
        self.codec = codec or EventCodec()
        self._charge_topic = self.codec.topic_of[UsageCharged].encode()
        self._charge_head = Struct(f">hi16siqi16sii{len(self._charge_topic)}si").pack

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> KeyedStoredEvent:
        """Return the row of one event, with its dedupe key and reference.

        Raises:
            TypeError: it is not an event of the ledger.
        """
        if not isinstance(domain_event, EventEnvelope):
            raise TypeError(f"{type(domain_event).__name__} is not an event of the ledger")
        event = domain_event.event
        return KeyedStoredEvent(
            domain_event.originator_id,
            domain_event.originator_version,
            self.codec.topic_of[type(event)],
            self.codec.encode(event),
            dedupe_key=dedupe_key_of(domain_event),
            refers_to=_reference(event),
        )

    def to_domain_event(self, stored_event: StoredEvent) -> EventEnvelope:
        """Return the event of one row.

        Raises:
            UnknownEventType: the topic is not in the catalogue.
        """
        event = self.codec.decode(stored_event.topic, stored_event.state)
        return EventEnvelope(_uuid(stored_event.originator_id), stored_event.originator_version, event)

    def charge_rows(self, events: Iterable[EventEnvelope], keys: Iterable[bytes]) -> bytes:
        """Return the COPY payload of the usage path's events, with the dedupe keys of its charges.

        A test checks that the result equals `copy_rows` of the same events.

        Raises:
            ValueError, struct.error: the number of keys and the number of charges differ.
        """
        encode, head, topic = self.codec.encode, self._charge_head, self._charge_topic
        topic_length = len(topic)
        streams: dict[int, bytes] = {}  # keyed by id(): hashing a UUID takes longer
        parts = [_HEADER]
        append = parts.append
        remaining = iter(keys)
        for envelope in events:
            event = envelope.event
            if type(event) is not UsageCharged:  # such as an expired hold or a low balance
                append(_row(self.to_stored_event(envelope)))
                continue
            stream = envelope.originator_id
            stream_bytes = streams.get(id(stream))
            if stream_bytes is None:
                stream_bytes = streams[id(stream)] = stream.bytes
            state = encode(event)
            append(
                head(
                    _FIELD_COUNT,
                    16,
                    stream_bytes,
                    8,
                    envelope.originator_version,
                    16,
                    next(remaining, None),
                    -1,  # refers_to: NULL
                    topic_length,
                    topic,
                    len(state),
                )
            )
            append(state)
        if next(remaining, None) is not None:
            raise ValueError("more keys than charges")
        append(_TRAILER)
        return b"".join(parts)


def copy_rows(stored_events: Iterable[StoredEvent]) -> bytes:
    """Return the COPY payload of any stored events."""
    return b"".join([_HEADER, *map(_row, stored_events), _TRAILER])


def _row(stored: StoredEvent) -> bytes:
    key = stored.dedupe_key if isinstance(stored, KeyedStoredEvent) else None
    refers_to = stored.refers_to if isinstance(stored, KeyedStoredEvent) else None
    topic = stored.topic.encode()
    return b"".join(
        (
            _START(_FIELD_COUNT, 16, _uuid(stored.originator_id).bytes, 8, stored.originator_version),
            _NULL if key is None else _KEY(16, key),
            _NULL if refers_to is None else _BIGINT(8, refers_to),
            _LENGTH(len(topic)),
            topic,
            _LENGTH(len(stored.state)),
            stored.state,
        )
    )


def _reference(event: DomainEvent) -> int | None:
    if isinstance(event, ChargeRefunded):
        return event.charge
    return event.purchase if isinstance(event, PurchaseRefunded) else None


def dedupe_key_of(envelope: EventEnvelope) -> bytes | None:
    """Return the dedupe key of an event; None if the event needs none.

    These are unique: a message, a run's hold and its settlement, a gateway's payment and order, the payment
    of a quote, a payment's invoice, and a refund's credit note. The source of a message never contains NUL,
    so the keys of messages and of other events cannot collide.
    """
    key = _KEYS.get(type(envelope.event))
    return None if key is None else key(envelope)


def _charge_key(envelope: EventEnvelope) -> bytes:
    event = cast("UsageCharged", envelope.event)
    if event.source == SETTLEMENT_SOURCE:
        return dedupe_key(f"settlement\0{envelope.originator_id}", event.cause)
    return dedupe_key(event.source, event.cause)


def _purchase_key(envelope: EventEnvelope) -> bytes:
    event = cast("CreditsPurchased", envelope.event)
    return purchase_key(event.gateway, event.payment_id)


def _hold_key(envelope: EventEnvelope) -> bytes:
    event = cast("HoldPlaced", envelope.event)
    return dedupe_key(f"hold\0{envelope.originator_id}", event.request.run_id)


def _payment_key(envelope: EventEnvelope) -> bytes | None:
    event = cast("PaymentRequested", envelope.event)
    return None if event.quote_id is None else quote_key(event.organisation_id, event.quote_id)


def _order_key(envelope: EventEnvelope) -> bytes:
    event = cast("PaymentOrdered", envelope.event)
    return order_key(event.gateway, event.order_id)


def _invoice_key(envelope: EventEnvelope) -> bytes:
    return dedupe_key("invoice\0", cast("InvoiceIssued", envelope.event).payment_id)


def _credit_note_key(envelope: EventEnvelope) -> bytes:
    event = cast("CreditNoteIssued", envelope.event)
    return dedupe_key(f"credit note\0{event.payment_id}", event.refund_id)


_KEYS: Final[Mapping[type[Any], Callable[[EventEnvelope], bytes | None]]] = {
    UsageCharged: _charge_key,
    CreditsPurchased: _purchase_key,
    HoldPlaced: _hold_key,
    PaymentRequested: _payment_key,
    PaymentOrdered: _order_key,
    InvoiceIssued: _invoice_key,
    CreditNoteIssued: _credit_note_key,
}


def _uuid(originator_id: UUID | str) -> UUID:
    return originator_id if isinstance(originator_id, UUID) else UUID(originator_id)
