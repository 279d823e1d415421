"""Between events and stored rows: one by one for the library, in bulk as COPY rows for the usage path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final, cast
from uuid import UUID

from eventsourcing.persistence import JSONTranscoder, StoredEvent
from eventsourcing.persistence import Mapper as EventMapper

from domain.aggregate import Event, Fact
from domain.catalogue import FactCodec
from domain.facts import ChargeRefunded, CreditsPurchased, HoldPlaced, PurchaseRefunded, UsageCharged
from domain.identity import dedupe_key, order_key, purchase_key, quote_key
from domain.invoice_facts import CreditNoteIssued, InvoiceIssued
from domain.organisation import SETTLEMENT_SOURCE
from domain.payment_facts import PaymentOrdered, PaymentRequested

COPY_COLUMNS: Final = "originator_id, originator_version, dedupe_key, refers_to, topic, state"
_FIELD_COUNT: Final = 6
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
# https://www.postgresql.org/docs/current/sql-copy.html: a count of fields, then each as length and bytes.
_START: Final = Struct(">hi16siq").pack  # field count, stream, version
_KEY: Final = Struct(">i16s").pack
_BIGINT: Final = Struct(">iq").pack
_LENGTH: Final = Struct(">i").pack


@dataclass(frozen=True)
class KeyedStoredEvent(StoredEvent):
    """A stored event with the two columns the library does not know."""

    dedupe_key: bytes | None = None
    """What may be in the ledger only once."""
    refers_to: int | None = None
    """Of a refund: the version of its charge, or of its purchase."""


class LedgerMapper(EventMapper[UUID]):
    """Events as rows: stream, version, topic, and the fact as a JSON array."""

    def __init__(self, codec: FactCodec | None = None, **_: Any) -> None:
        super().__init__(JSONTranscoder())
        self.codec = codec or FactCodec()
        self._charge_topic = self.codec.topic_of[UsageCharged].encode()
        self._charge_head = Struct(f">hi16siqi16sii{len(self._charge_topic)}si").pack

    def to_stored_event(self, domain_event: Any) -> KeyedStoredEvent:
        """Return the row of one event, with its dedupe key and reference."""
        fact = domain_event.fact
        return KeyedStoredEvent(
            domain_event.originator_id,
            domain_event.originator_version,
            self.codec.topic_of[type(fact)],
            self.codec.encode(fact),
            dedupe_key=key_of(domain_event),
            refers_to=_reference(fact),
        )

    def to_domain_event(self, stored_event: StoredEvent) -> Event:
        """Return the event of one row.

        Raises:
            UnknownEventType: the topic is not in the catalogue.
        """
        fact = self.codec.decode(stored_event.topic, stored_event.state)
        return Event(_uuid(stored_event.originator_id), stored_event.originator_version, fact)

    def charge_rows(self, events: Iterable[Event], keys: Iterable[bytes]) -> bytes:
        """Return the COPY payload of the usage path's events; the keys of its charges are known already.

        A test holds this equal to `copy_rows` of the same events one by one.

        Raises:
            ValueError, struct.error: there are more, or fewer, keys than charges.
        """
        encode, head, topic = self.codec.encode, self._charge_head, self._charge_topic
        topic_length = len(topic)
        streams: dict[int, bytes] = {}  # by the UUID's place in memory: hashing it takes longer
        parts = [_HEADER]
        append = parts.append
        left = iter(keys)
        for event in events:
            fact = event.fact
            if type(fact) is not UsageCharged:  # a hold that lapsed, or a balance that ran out
                append(_row(self.to_stored_event(event)))
                continue
            stream = event.originator_id
            stream_bytes = streams.get(id(stream))
            if stream_bytes is None:
                stream_bytes = streams[id(stream)] = stream.bytes
            state = encode(fact)
            append(
                head(
                    _FIELD_COUNT,
                    16,
                    stream_bytes,
                    8,
                    event.originator_version,
                    16,
                    next(left, None),
                    -1,  # refers_to: NULL
                    topic_length,
                    topic,
                    len(state),
                )
            )
            append(state)
        if next(left, None) is not None:
            raise ValueError("there are more keys than charges")
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


def _reference(fact: Fact) -> int | None:
    if isinstance(fact, ChargeRefunded):
        return fact.charge
    return fact.purchase if isinstance(fact, PurchaseRefunded) else None


def key_of(event: Event) -> bytes | None:
    """Return what may be in the ledger only once, None where nothing can repeat.

    It is a message, a run's hold and its settlement, a gateway's payment and its order, a quote's payment, a
    payment's invoice or a refund's credit note. No message's source holds NUL: a message never takes the
    place of another thing, nor that of a message.
    """
    key = _KEYS.get(type(event.fact))
    return None if key is None else key(event)


def _of_charge(event: Event) -> bytes:
    fact = cast(UsageCharged, event.fact)
    if fact.source == SETTLEMENT_SOURCE:
        return dedupe_key(f"settlement\0{event.originator_id}", fact.cause)
    return dedupe_key(fact.source, fact.cause)


def _of_purchase(event: Event) -> bytes:
    fact = cast(CreditsPurchased, event.fact)
    return purchase_key(fact.gateway, fact.payment_id)


def _of_hold(event: Event) -> bytes:
    fact = cast(HoldPlaced, event.fact)
    return dedupe_key(f"hold\0{event.originator_id}", fact.request.run_id)


def _of_payment(event: Event) -> bytes | None:
    fact = cast(PaymentRequested, event.fact)
    return None if fact.quote_id is None else quote_key(fact.organisation_id, fact.quote_id)


def _of_order(event: Event) -> bytes:
    fact = cast(PaymentOrdered, event.fact)
    return order_key(fact.gateway, fact.order_id)


def _of_invoice(event: Event) -> bytes:
    return dedupe_key("invoice\0", cast(InvoiceIssued, event.fact).payment_id)


def _of_credit_note(event: Event) -> bytes:
    fact = cast(CreditNoteIssued, event.fact)
    return dedupe_key(f"credit note\0{fact.payment_id}", fact.refund_id)


_KEYS: Final[Mapping[type[Any], Callable[[Event], bytes | None]]] = {
    UsageCharged: _of_charge,
    CreditsPurchased: _of_purchase,
    HoldPlaced: _of_hold,
    PaymentRequested: _of_payment,
    PaymentOrdered: _of_order,
    InvoiceIssued: _of_invoice,
    CreditNoteIssued: _of_credit_note,
}


def _uuid(originator_id: UUID | str) -> UUID:
    return originator_id if isinstance(originator_id, UUID) else UUID(originator_id)
