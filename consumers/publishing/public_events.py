"""The public form of each event: structured CloudEvents 1.0 on the events topic.

The public form has its own field names, so that the stored form can change independently. Fields may only be
added; any other change needs a new type, `credit_ledger.NAME.v2`. Free text (reasons, names of photo events)
stays in the ledger: only ids and references are published.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from consumers.publishing.public_audit_events import AUDIT_MAPPINGS
from consumers.publishing.public_auto_top_up_events import AUTO_TOP_UP_MAPPINGS
from consumers.publishing.public_credit_events import CREDIT_MAPPINGS
from consumers.publishing.public_mapping import Data, PublicMapping, PublicMappings, in_utc
from consumers.publishing.public_payment_events import PAYMENT_MAPPINGS
from domain.shared.aggregate import DomainEvent
from domain.shared.errors import UnknownEventType

SOURCE: Final = "/credit-ledger"
LIST_MAX: Final = 5_000
"""A longer list is left out, so that no message exceeds the default size limit of brokers."""

PUBLIC_MAPPINGS: Final[PublicMappings] = {
    **CREDIT_MAPPINGS,
    **AUTO_TOP_UP_MAPPINGS,
    **AUDIT_MAPPINGS,
    **PAYMENT_MAPPINGS,
}
"""The public forms of all events of `domain.event_catalogue`; a contract test checks that none is missing."""


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
