"""The OpenAPI document: FastAPI generates it; the ledger's problems replace FastAPI's errors."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.http.authentication import KEY_HEADER
from api.http.fields import POSITION_MAX
from api.http.permissions import Rule, rule_of
from api.http.problem_types import Problem
from api.http.problems import responses

VERSION: Final = "1.0.0"
TITLE: Final = "Credit Ledger"
DESCRIPTION: Final = """\
Credits of a photo platform's organisations: balances, usage, payments, and the history of every change.

* Credits are whole numbers. Prices are in millionths of the currency unit (`*_millionths`). Amounts are in
  minor units (`*_minor`: cents, paise).
* Times are ISO 8601 in UTC. Days and months are in the organisation's time zone.
* Reads use projections, which follow the ledger within moments. `Ledger-Position` is the log position of a
  response. To read your own write, pass its `position` as `min_position`.
* Writes accept an `Idempotency-Key`. If a request gets no response, repeat it with the same key: it takes
  effect only once.
* Authenticate with a bearer token (`Authorization`) or an API key (`X-API-Key`). Every operation documents
  who may call it. A write records the token's subject as its actor.
* `RateLimit` has the remaining quotas of the caller and of the organisation, in requests per minute.
* A null in an optional field means the same as an absent field.
* HEAD returns the headers of GET without the content.
* Errors are RFC 9457 problems (`application/problem+json`). The URI in `type` explains the problem.
* The service accepts an `X-Request-Id` (up to 128 printable ASCII characters) or creates one, and always
  returns it. Events of a write record it as their cause.
"""
TAGS: Final = (
    {"name": "Organisation", "description": "Open an organisation, and change its terms."},
    {"name": "Credits", "description": "Balances, grants, purchases and refunds."},
    {"name": "Holds", "description": "Credits reserved for runs, and quotes for runs."},
    {"name": "Payments", "description": "Payments for credits and plans, through payment gateways."},
    {"name": "Usage", "description": "Usage by month, day and photo event."},
    {"name": "Transactions", "description": "Single runs and additions."},
    {"name": "Invoices", "description": "Billing details, invoices and credit notes."},
    {"name": "API keys", "description": "API keys for an organisation's programs."},
    {
        "name": "Webhooks",
        "description": "Notifications about low, exhausted and new credits, sent to your endpoints.",
    },
    {
        "name": "People",
        "description": "Names and email addresses of people, and their erasure. Events keep only ids.",
    },
    {"name": "Operations", "description": "Health, metrics, and the meaning of problem types."},
)
SECURITY_SCHEMES: Final = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of the issuer for a person, for staff, for an auditor, or for the service.",
    },
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": KEY_HEADER,
        "description": "An API key of an organisation. It can read the data of that organisation.",
    },
}
_ACCESS_PROBLEMS: Final = (
    "credentials-missing",
    "credentials-refused",
    "role-insufficient",
    "too-many-requests",
    "identities-unavailable",
)
_FASTAPI_ERRORS: Final = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the app's OpenAPI document. It is built at the first call."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=TITLE,
            version=VERSION,
            summary="Event-sourced credits, exactly once.",
            description=DESCRIPTION,
            routes=app.routes,
            tags=[dict(tag) for tag in TAGS],
        )
        schemas = document["components"]["schemas"]
        for name in _FASTAPI_ERRORS:
            schemas.pop(name, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem
        document["components"]["securitySchemes"] = SECURITY_SCHEMES
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                _document_access(operation, rule_of([method.upper()], path))
                for parameter in operation.get("parameters", ()):
                    parameter["schema"] = _without_null(parameter["schema"])
        _restore_integer_bounds(document)
        app.openapi_schema = document
    return app.openapi_schema


def _document_access(operation: dict[str, Any], rule: Rule) -> None:
    """Add the access rule to an operation: its allowed callers, its security schemes and its refusals."""
    operation["security"] = []
    if rule.is_public:
        return
    operation["description"] = f"{operation['description']}\n\n{rule.access_text}"
    operation["security"] = [{"token": []}, *([{"key": []}] if rule.allows_api_keys else [])]
    for status, refusal in responses(*_ACCESS_PROBLEMS).items():
        entry = operation["responses"].setdefault(str(status), refusal)
        if entry is not refusal:
            for media_type, content in refusal["content"].items():
                entry["content"][media_type]["examples"].update(content["examples"])
            entry["description"] += f"; {refusal['description'].lower()}"
    operation["responses"]["401"]["headers"] = {
        "WWW-Authenticate": {"description": "The credentials to send.", "schema": {"type": "string"}}
    }
    operation["responses"]["429"]["headers"] = {
        "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
    }
    operation["responses"] = dict(sorted(operation["responses"].items()))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an optional parameter without null: a parameter can be absent, but not null."""
    choices: list[dict[str, Any]] = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(choices) != 1:
        return schema
    return choices[0] | {key: value for key, value in schema.items() if key != "anyOf"}


def _restore_integer_bounds(node: Any) -> None:
    """Convert the bounds of integers back to integers: FastAPI's model of the document has floats."""
    if isinstance(node, list):
        for each in node:
            _restore_integer_bounds(each)
    elif isinstance(node, dict):
        for bound in ("minimum", "maximum"):
            if isinstance(node.get(bound), float):
                node[bound] = min(int(node[bound]), POSITION_MAX)  # as a float it is greater by one
        for each in node.values():
            _restore_integer_bounds(each)
