"""Responses that operations share in the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from api.http.dependencies import POSITION_HEADER, REPLAYED_HEADER
from api.http.problems import responses

DEFAULT_PAGE_LIMIT: Final = 50


COMMON_PROBLEMS: Final = (
    "cross-site-request",
    "organisation-unknown",
    "host-not-allowed",
    "invalid-request",
    "internal-error",
    "projection-behind",
    "store-unavailable",
)


def read_responses() -> dict[int | str, dict[str, Any]]:
    """Return what every read answers, as OpenAPI has it."""
    return {
        200: {
            "headers": {
                POSITION_HEADER: {
                    "description": "Log position the answer is true at.",
                    "schema": {"type": "integer", "minimum": 0},
                }
            }
        }
    }


_PROBLEMS: Final = (
    "malformed-json",
    "cross-site-request",
    "body-too-large",
    "unsupported-media-type",
    "host-not-allowed",
    "invalid-request",
    "idempotency-conflict",
    "internal-error",
    "store-unavailable",
)


_HEADERS: Final = {
    POSITION_HEADER: {
        "description": "Log position of the write.",
        "schema": {"type": "integer", "minimum": 0},
    },
    REPLAYED_HEADER: {
        "description": "There if the answer repeats the first one to this Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}


def write_responses(status: int, *names: str) -> dict[int | str, dict[str, Any]]:
    """Return what a write answers, as OpenAPI has it: its headers, and its problems by name."""
    return {status: {"headers": _HEADERS}, **responses(*_PROBLEMS, *names)}
