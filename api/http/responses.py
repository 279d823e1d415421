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
    """Return the OpenAPI responses of every read."""
    return {
        200: {
            "headers": {
                POSITION_HEADER: {
                    "description": "Log position of this response.",
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
        "description": "Present if this response repeats the first response to the Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}


def write_responses(status: int, *names: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of a write: its headers, and its problem types by name."""
    return {status: {"headers": _HEADERS}, **responses(*_PROBLEMS, *names)}
