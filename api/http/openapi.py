"""The OpenAPI document: what FastAPI finds out, with the ledger's problems in place of its own errors."""

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
Credits of a photo platform's organisations: what they have, where they went, and every change on record.

* Credits are whole numbers. Prices are in millionths of the currency unit (`*_millionths`), amounts in minor
  units (`*_minor`: cents, paise).
* Moments are ISO 8601 in UTC. Days and months are those of the organisation's time zone.
* Reads answer from views that follow the ledger, within moments. `Ledger-Position` says where they stand; to
  read your own write, pass its `position` as `min_position`.
* Writes take an `Idempotency-Key`: repeat a request that got no answer with the same key, and it counts once.
* Say who you are with a bearer token (`Authorization`) or an API key (`X-API-Key`); every operation says who
  may. Writes keep the token's subject as their actor.
* `RateLimit` says what is left of the quotas of who asks and of the organisation, in requests a minute.
* An optional field that is null says what leaving it out says.
* HEAD answers like GET, without the content.
* Errors are RFC 9457 problems (`application/problem+json`); each `type` leads to its explanation.
* `X-Request-Id` (up to 128 printable ASCII characters) is taken over, or made, and always returned; writes
  keep it as their cause.
"""
TAGS: Final = (
    {"name": "Organisation", "description": "Opening an organisation, and the terms it is on."},
    {"name": "Credits", "description": "What is there, and what adds to it."},
    {"name": "Holds", "description": "Credits set aside for runs, and what a run would cost."},
    {"name": "Payments", "description": "Credits and plans that are paid for, through payment gateways."},
    {"name": "Usage", "description": "What was used, by month, day and photo event."},
    {"name": "Transactions", "description": "Runs and additions, one by one."},
    {"name": "Invoices", "description": "Who invoices are made out to, invoices and credit notes."},
    {"name": "API keys", "description": "Keys for the organisation's own programs."},
    {"name": "Webhooks", "description": "Addresses that are told when credits run low, out, or come in."},
    {"name": "People", "description": "Names behind the ids that events keep, and their erasure."},
    {"name": "Operations", "description": "Health, metrics, and the meaning of problems."},
)
SECURITY_SCHEMES: Final = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of the issuer: of a person, of staff, of an auditor, or of the service.",
    },
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": KEY_HEADER,
        "description": "An API key of an organisation; it reads what the organisation may read.",
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
    """Return the app's OpenAPI document, built once."""
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
    """Add what its rule means to an operation: who may, how they show it, and what the others are told."""
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
        "WWW-Authenticate": {"description": "What to send.", "schema": {"type": "string"}}
    }
    operation["responses"]["429"]["headers"] = {
        "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
    }
    operation["responses"] = dict(sorted(operation["responses"].items()))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an optional parameter: it may be missing, but there is no way to send null."""
    choices: list[dict[str, Any]] = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(choices) != 1:
        return schema
    return choices[0] | {key: value for key, value in schema.items() if key != "anyOf"}


def _restore_integer_bounds(node: Any) -> None:
    """Turn the bounds of integers back into integers: FastAPI's own model of the document has floats."""
    if isinstance(node, list):
        for each in node:
            _restore_integer_bounds(each)
    elif isinstance(node, dict):
        for bound in ("minimum", "maximum"):
            if isinstance(node.get(bound), float):
                node[bound] = min(int(node[bound]), POSITION_MAX)  # as a float it is one more
        for each in node.values():
            _restore_integer_bounds(each)
