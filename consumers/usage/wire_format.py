"""The wire contract of `photo-processing.usage.v1`: CloudEvents 1.0 over Kafka, structured or binary.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from domain.credits.limits import SETTLEMENT_SOURCE
from domain.credits.usage import Usage, UsageReport

USAGE_REPORTED: Final = "photo_processing.usage_reported.v1"
VALUE_MAX_BYTES: Final = 65_536
YEARS: Final = range(2000, 2100)
REASON_MAX_LENGTH: Final = 300


class InvalidUsageMessage(Exception):
    """A record is invalid. `field` is the invalid field (None: the whole record)."""

    def __init__(self, reason: str, field: str | None = None) -> None:
        if len(reason) > REASON_MAX_LENGTH:  # it may quote the message
            reason = reason[: REASON_MAX_LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
        super().__init__(reason)
        self.reason = reason
        self.field = field


Headers = Sequence[tuple[str, bytes | None]]

_STRUCTURED: Final = [("content-type", b"application/cloudevents+json")]
"""The headers of most records."""

_decode_structured: Final = msgspec.json.Decoder(UsageReport).decode
_decode_data: Final = msgspec.json.Decoder(Usage).decode
_CONTEXT_ATTRIBUTES: Final = ("specversion", "id", "source", "type", "subject", "time")
_AT_PATH: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>[^`]+)`")


def decode_usage(key: bytes | None, value: bytes | None, headers: Headers) -> UsageReport:
    """Return the usage report of a record.

    Raises:
        InvalidUsageMessage: the record does not match the contract.
    """
    if not value:
        raise InvalidUsageMessage("the record has no value")
    if len(value) > VALUE_MAX_BYTES:
        raise InvalidUsageMessage(
            f"the value has {len(value):,} bytes; at most {VALUE_MAX_BYTES:,} are accepted"
        )
    binary = bool(headers) and headers != _STRUCTURED and _is_binary(headers)
    try:
        message = _decode_binary(value, headers) if binary else _decode_structured(value)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidUsageMessage(f"the value is not JSON: {error}") from None
    except RecursionError:
        raise InvalidUsageMessage("the value is nested too deeply") from None
    if key != message.organisation_id.encode():
        raise InvalidUsageMessage("the key of the record differs from subject, the organisation", "subject")
    if message.source == SETTLEMENT_SOURCE:
        raise InvalidUsageMessage("this source is reserved for the ledger", "source")
    # Text columns cannot store NUL. JSON can contain control characters only as escapes.
    if b"\\" in value or binary:
        _refuse_control_characters(message)
    if message.occurred_at.tzinfo is not UTC:
        message = msgspec.structs.replace(message, occurred_at=_in_utc(message.occurred_at))
    if message.occurred_at.year not in YEARS:
        raise _out_of_range()
    return message


def _is_binary(headers: Headers) -> bool:
    """Return whether the record is in binary mode. The content type of structured mode has precedence."""
    by_name = {name.lower(): content for name, content in headers}
    content_type = by_name.get("content-type") or b""
    return "ce_specversion" in by_name and not content_type.lower().startswith(b"application/cloudevents")


def _in_utc(occurred_at: datetime) -> datetime:
    try:
        return occurred_at.astimezone(UTC)
    except OverflowError:
        raise _out_of_range() from None


def _out_of_range() -> InvalidUsageMessage:
    return InvalidUsageMessage(f"the time is outside the years {YEARS.start} to {YEARS.stop - 1}", "time")


def _decode_binary(value: bytes, headers: Headers) -> UsageReport:
    """Decode an event with its attributes in headers and its data in the value."""
    by_name = {name.lower(): content for name, content in headers if content is not None}
    content_type = by_name.get("content-type", b"").decode("latin-1").split(";")[0].strip().lower()
    if content_type not in ("", "application/json"):
        raise InvalidUsageMessage(f"data of type {content_type!r} is not supported", "content-type")
    return msgspec.convert({**_context(by_name), "data": _decode_data_field(value)}, UsageReport)


def _context(by_name: Mapping[str, bytes]) -> dict[str, str]:
    context = {}
    for attribute in _CONTEXT_ATTRIBUTES:
        content = by_name.get(f"ce_{attribute}")
        if content is not None:
            try:
                context[attribute] = content.decode()
            except UnicodeDecodeError:
                raise InvalidUsageMessage("the header is not UTF-8", attribute) from None
    return context


def _decode_data_field(value: bytes) -> Usage:
    try:
        return _decode_data(value)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), under="data") from None


def _refusal(problem: str, under: str = "") -> InvalidUsageMessage:
    """Return the error for a decoder message such as "Expected `int` - at `$.data.photos`"."""
    at_path = _AT_PATH.search(problem)
    path = [under, at_path["path"] if at_path else ""]
    missing = _MISSING.match(problem)
    if missing:
        path.append(missing["name"])
    reason = _AT_PATH.sub("", problem)
    return InvalidUsageMessage(reason, ".".join(part for part in path if part) or None)


def _refuse_control_characters(message: UsageReport) -> None:
    data = message.usage
    fields = {
        "id": message.message_id,
        "source": message.source,
        "subject": message.organisation_id,
        "data.run_id": data.run_id,
        "data.event.name": data.photo_event.name,
        "data.user.id": data.user.id if data.user else "",
        "data.hold_id": data.hold_id or "",
    }
    for field, text in fields.items():
        if any(character < " " for character in text):
            raise InvalidUsageMessage("control characters are not accepted", field)
