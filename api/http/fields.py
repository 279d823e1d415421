"""Types of single fields: bounds, parsing and documentation."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final
from urllib.parse import unquote

from fastapi import Header, Path, Query
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from domain.credits.commands import ORGANISATION_ID_MAX_LENGTH
from domain.credits.limits import CREDITS_MAX
from domain.shared.money import PRICE_MILLIONTHS_MAX

POSITION_MAX: Final = 2**63 - 1
ID_LENGTH_MAX: Final = 128
REASON_LENGTH_MAX: Final = 200
NAME_LENGTH_MAX: Final = 64
PERSON_NAME_LENGTH_MAX: Final = 200
EMAIL_LENGTH_MAX: Final = 254
EMAIL_PATTERN: Final = r"^[!-?A-~]+@[!-?A-~]+$"
KEY_ID_PATTERN: Final = r"^[0-9a-f]{12}$"
ENDPOINT_ID_PATTERN: Final = r"^whe_[0-9a-f]{12}$"
PAGE_LIMIT_MAX: Final = 500
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 9998
_PRINTABLE_ASCII: Final = r"^[ -~]+$"
_NO_CONTROLS: Final = r"^[^\x00-\x1f\x7f]+$"
_NO_LOW_CONTROLS: Final = r"^[^\x00-\x1f]+$"
EVENT_NAME_PATTERN: Final = r"^[^\x00-\x1f]*$"
_GATEWAY: Final = r"^[a-z0-9][a-z0-9_-]*$"
PATTERN_DESCRIPTIONS: Final = {
    _PRINTABLE_ASCII: "Input should have printable ASCII characters only",
    _NO_CONTROLS: "Input should have no control characters",
    _NO_LOW_CONTROLS: "Input should have no control characters",
    EVENT_NAME_PATTERN: "Input should have no control characters",
    KEY_ID_PATTERN: "Input should be 12 digits 0 to 9 and letters a to f",
    EMAIL_PATTERN: "Input should be an email address such as asha@example.com",
    ENDPOINT_ID_PATTERN: "Input should be whe_ and 12 digits 0 to 9 and letters a to f",
    _GATEWAY: "Input should be lowercase letters a to z, digits, _ and -, and begin with a letter or a digit",
}
"""The error message for each pattern."""

_INSTANT: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)


def _read_instant(value: Any) -> Any:
    """Return an ISO 8601 time in UTC. Numbers and times without an offset are errors."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    invalid_instant = PydanticCustomError(
        "instant",
        "Input should be a time with its offset, such as 2026-11-22T09:15:00Z (a + in a URL is %2B)",
    )
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        raise invalid_instant
    try:
        instant = datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid_instant from None
    if not _FIRST_YEAR <= instant.year <= _LAST_YEAR:  # so that every time zone can represent it
        raise PydanticCustomError("instant_range", f"Input should be between {_FIRST_YEAR} and {_LAST_YEAR}")
    return instant


def _read_day(value: Any) -> Any:
    if isinstance(value, date):
        return value
    try:
        if isinstance(value, str) and _DAY.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise PydanticCustomError("day", "Input should be a day, such as 2026-11-22")


def _read_month(value: Any) -> Any:
    if isinstance(value, date):
        return value
    try:
        if isinstance(value, str) and _MONTH.fullmatch(value):
            return date.fromisoformat(f"{value}-01")
    except ValueError:
        pass
    raise PydanticCustomError("month", "Input should be a month, such as 2026-11")


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("printable", "Input should have printable characters only")
    return text


def _decode_segment(segment: Any) -> Any:
    """Return a decoded path segment: the router passes segments percent-encoded."""
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise PydanticCustomError("utf8", "Input should be percent-encoded UTF-8") from None


def _check_segment(text: str) -> str:
    if text in (".", ".."):  # most clients and proxies drop such segments from a path
        raise PydanticCustomError("dots", "Input cannot be used in a URL")
    return _check_printable(text)


def _check_run_id(text: str) -> str:
    if any(character < " " for character in text):
        raise PydanticCustomError("printable", "Input should have no control characters")
    return text


Instant = Annotated[
    datetime,
    Field(strict=False),
    BeforeValidator(_read_instant),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-22T09:15:00Z"]}),
]
"""A time in ISO 8601. Input has any offset; output is in UTC."""

Day = Annotated[
    date,
    Field(strict=False),
    BeforeValidator(_read_day),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-11-22"]}),
]
Month = Annotated[
    date,
    Field(strict=False),
    BeforeValidator(_read_month),
    PlainSerializer(lambda month: month.isoformat()[:7], return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{4}-(0[1-9]|1[0-2])$", "examples": ["2026-11"]}),
]
"""A calendar month, YYYY-MM. In Python it is the first day of the month."""

Credits = Annotated[int, Field(ge=1, le=CREDITS_MAX, examples=[500])]
PriceMillionths = Annotated[
    int,
    Field(
        ge=0,
        le=PRICE_MILLIONTHS_MAX,
        description="The price of one credit, in millionths of the currency unit: 20,000 is $0.02.",
        examples=[20_000],
    ),
]
Version = Annotated[
    int,
    Field(
        ge=1, le=POSITION_MAX, description="Version of an event in the organisation's history.", examples=[17]
    ),
]
Reason = Annotated[
    str,
    Field(
        min_length=1,
        max_length=REASON_LENGTH_MAX,
        pattern=_NO_CONTROLS,
        description="The reason, in a few words. It is stored permanently: no names, no email addresses.",
        examples=["goodwill after an outage"],
    ),
    AfterValidator(_check_printable),
]
Identifier = Annotated[
    str,
    Field(min_length=1, max_length=ID_LENGTH_MAX, pattern=_NO_CONTROLS),
    AfterValidator(_check_printable),
]

Gateway = Annotated[
    str,
    Field(
        min_length=1,
        max_length=ID_LENGTH_MAX,
        pattern=_GATEWAY,
        description="The payment gateway, in lowercase. Payment ids are unique per gateway, so the spelling"
        " must always be the same.",
        examples=["razorpay"],
    ),
]

Name = Annotated[
    str,
    Field(min_length=1, max_length=NAME_LENGTH_MAX, pattern=_NO_CONTROLS),
    AfterValidator(_check_printable),
]

PersonName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=PERSON_NAME_LENGTH_MAX,
        pattern=_NO_CONTROLS,
        description="The person's name.",
        examples=["Asha Rao"],
    ),
    AfterValidator(_check_printable),
]
ShownName = Annotated[
    str,
    Field(
        description="The name to show: a name, `System`, `erased person`, or the id of an unknown person.",
        examples=["Asha Rao"],
    ),
]
UserId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=ID_LENGTH_MAX,
        pattern=_NO_CONTROLS,
        description="The platform's opaque id of the person, percent-encoded: `sub` of their tokens.",
        examples=["u-17"],
    ),
    AfterValidator(_check_segment),
    BeforeValidator(_decode_segment),
]

OrganisationId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=ORGANISATION_ID_MAX_LENGTH,
        pattern=_NO_CONTROLS,
        description="The platform's id of the organisation, percent-encoded (a slash is %2F).",
        examples=["org-4711"],
    ),
    AfterValidator(_check_segment),
    BeforeValidator(_decode_segment),
]
RunId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=ID_LENGTH_MAX,
        pattern=_NO_LOW_CONTROLS,
        description="The id of the run, percent-encoded: the `reference` of a usage transaction.",
        examples=["run-88"],
    ),
    AfterValidator(_check_run_id),
    BeforeValidator(_decode_segment),
]
HoldId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=ID_LENGTH_MAX,
        pattern=_NO_CONTROLS,
        description="The `hold_id` of a hold.",
        examples=["hold-8"],
    ),
    AfterValidator(_check_printable),
    BeforeValidator(_decode_segment),
]
MinPosition = Annotated[
    int | None,
    Query(
        ge=0,
        le=POSITION_MAX,
        description="Wait until the projections have reached this log position: the `position` of your"
        " write.",
        examples=[1042],
    ),
]
PageCursor = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=1_024,
        description="The `next_cursor` of the previous page. Leave it out for the first page.",
    ),
]
PageLimit = Annotated[
    int, Query(ge=1, le=PAGE_LIMIT_MAX, description="The maximum number of entries to return.", examples=[50])
]
IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=_PRINTABLE_ASCII,
        description="Makes the request idempotent. A repeat with the same key and body gets the first"
        " response again; another body with the same key is an error.",
        examples=["0198f0c2-6b7e-7c3a-9f51-2f0d1c9f8a11"],
    ),
]
