"""Paths, prices, moments, and texts for schemas."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from api.credits.schemas import decimal_price
from api.http.docs_page import _text
from api.http.fields import Instant, OrganisationId
from api.http.middleware import canonical_path
from api.http.schema_text import example_of, type_of


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (b"/v1/organisations/a%2Fb/balance", "/v1/organisations/a%2Fb/balance"),
        (b"/v1/organisations/a%2fb/balance", "/v1/organisations/a%2Fb/balance"),
        (b"/%76%31/organisations/%7Ea", "/v1/organisations/~a"),
        (b"/a%252Fb", "/a%252Fb"),
        (b"/\xc3\xbc", "/%C3%BC"),
        (b"/%ff", "/%FF"),
        (b"/a+b:c@d", "/a+b:c@d"),
        (b"/100%", "/100%25"),
        (b"/", "/"),
    ],
)
def test_a_path_has_one_spelling(raw, canonical):
    assert canonical_path({"path": "/other", "raw_path": raw}) == canonical


def test_a_server_without_a_raw_path():
    assert canonical_path({"path": "/a b/ü"}) == "/a%20b/%C3%BC"


@pytest.mark.parametrize("segment", [".", "..", "%2E", "", "%00", "a%0Ab", "%FF", "%ED%A0%80"])
def test_an_organisation_id_that_no_url_can_carry(segment):
    with pytest.raises(ValidationError):
        TypeAdapter(OrganisationId).validate_python(segment)


@pytest.mark.parametrize(
    ("millionths", "price"),
    [
        (0, "0.00"),
        (1, "0.000001"),
        (20_000, "0.02"),
        (15_500, "0.0155"),
        (1_500_000, "1.50"),
        (2_000_000, "2.00"),
        (10_000_000_000, "10000.00"),
    ],
)
def test_a_price_has_two_decimals_or_as_many_as_it_needs(millionths, price):
    assert decimal_price(millionths) == price


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T09:15:00Z", datetime(2026, 11, 22, 9, 15, tzinfo=UTC)),
        ("2026-11-22t14:45:00.25+05:30", datetime(2026, 11, 22, 9, 15, 0, 250_000, UTC)),
        ("2026-11-22T09:15z", datetime(2026, 11, 22, 9, 15, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read_in_utc(text, moment):
    assert TypeAdapter(Instant).validate_python(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22",
        "2026-11-22 09:15:00Z",
        "20261122T091500Z",
        "1969-12-31T23:59:59Z",
        "٢026-11-22T09:15:00Z",
        5,
        None,
    ],
)
def test_an_invalid_moment(text):
    with pytest.raises(ValidationError):
        TypeAdapter(Instant).validate_python(text)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 5000}, "integer, 1 to 5,000"),
        ({"type": "integer", "minimum": 0}, "integer, at least 0"),
        ({"type": "string", "maxLength": 8}, "string, at most 8 characters"),
        ({"type": "string", "format": "date"}, "date"),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Charge"}}, "Charge[]"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string or null"),
        ({"enum": ["a", "b"]}, '"a" or "b"'),
        ({"const": "ready"}, '"ready"'),
    ],
)
def test_types_are_described_in_words(schema, words):
    assert type_of(schema) == words


def test_an_example_is_put_together_from_its_parts():
    document = {"components": {"schemas": {"Inner": {"type": "boolean"}}}}
    schema = {
        "type": "object",
        "properties": {
            "own": {"type": "integer", "examples": [7]},
            "list": {"type": "array", "items": {"$ref": "#/components/schemas/Inner"}},
            "one": {"oneOf": [{"enum": ["x"]}, {"type": "null"}]},
            "text": {"type": "string"},
        },
    }
    assert example_of(document, schema) == {"own": 7, "list": [False], "one": "x", "text": "..."}


def test_a_little_markdown_becomes_html_and_nothing_else():
    assert _text("One `a<b`.\n\n* first\n* second & third") == (
        "<p>One <code>a&lt;b</code>.</p><ul><li>first</li><li>second &amp; third</li></ul>"
    )
