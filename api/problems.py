"""What can go wrong, as HTTP says it: RFC 9457 problems, and the one map from errors to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec
import psycopg
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.fields import PATTERNS_IN_WORDS
from api.problem_types import PROBLEM_TYPES, FieldError, ProblemType
from domain import errors
from domain.gateway import GatewayError, GatewayRefused, GatewayUnavailable, NoticeRefused
from projections.errors import PhotoEventUnknown, RunUnknown

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_FIELD_LENGTH_MAX: Final = 128
_INSTANCE_LENGTH_MAX: Final = 1_024
_ERRORS_MAX: Final = 20
_TOLD_MAX: Final = 3

Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

_log = logging.getLogger("api")


@dataclass(frozen=True)
class _Mapped:
    """Where an error of the ledger goes, and the request's field that it is about."""

    name: str
    field: str | None = None


# The most particular class of an error decides.
_PROBLEM_OF: Final[Mapping[type[errors.LedgerError], _Mapped]] = {
    errors.LedgerError: _Mapped("internal-error"),
    errors.OrganisationUnknown: _Mapped("organisation-unknown"),
    errors.OrganisationAlreadyOpen: _Mapped("organisation-already-open"),
    errors.InvalidInput: _Mapped("invalid-request"),
    errors.CurrencyMismatch: _Mapped("currency-mismatch", "currency"),
    errors.PurchaseAlreadyRecorded: _Mapped("purchase-already-recorded", "payment_id"),
    errors.ChargeUnknown: _Mapped("charge-unknown", "charge"),
    errors.RefundExceedsCharge: _Mapped("refund-exceeds-charge", "credits"),
    errors.InsufficientCredits: _Mapped("insufficient-credits", "credits"),
    errors.HoldUnknown: _Mapped("hold-unknown"),
    errors.HoldClosed: _Mapped("hold-closed"),
    errors.HoldConflict: _Mapped("hold-conflict", "run_id"),
    errors.WebhookEndpointUnknown: _Mapped("webhook-endpoint-unknown"),
    errors.WebhookEndpointsExhausted: _Mapped("webhook-endpoints-exhausted"),
    errors.WebhookEndpointIsDisabled: _Mapped("webhook-endpoint-disabled"),
    errors.PersonUnknown: _Mapped("person-unknown"),
    errors.PersonErased: _Mapped("person-erased"),
    errors.IdempotencyConflict: _Mapped("idempotency-conflict", "Idempotency-Key"),
    errors.PriceVersionUnknown: _Mapped("internal-error"),
    errors.BillingDetailsMissing: _Mapped("billing-details-missing"),
    errors.InvoiceUnknown: _Mapped("invoice-unknown"),
    errors.NothingToInvoice: _Mapped("nothing-to-invoice"),
    errors.QuoteUnknown: _Mapped("quote-unknown", "quote_id"),
    errors.QuoteExpired: _Mapped("quote-expired", "quote_id"),
    errors.ProAlready: _Mapped("pro-already", "plan"),
    errors.BillingIsCustom: _Mapped("billing-is-custom"),
    errors.AutoTopUpIsOn: _Mapped("auto-top-up-is-on"),
    errors.AutoTopUpIsOff: _Mapped("auto-top-up-is-off"),
    errors.GatewayUnknown: _Mapped("gateway-unknown", "gateway"),
    errors.PaymentUnknown: _Mapped("payment-unknown"),
    errors.PaymentClosed: _Mapped("payment-closed"),
    errors.PaymentNotRefundable: _Mapped("payment-not-refundable"),
    errors.RefundExceedsPurchase: _Mapped("refund-exceeds-purchase", "credits"),
    errors.RefundExceedsPayment: _Mapped("refund-exceeds-payment", "amount_minor"),
    errors.FlagNotOpen: _Mapped("flag-not-open", "flag"),
    GatewayError: _Mapped("internal-error"),
    GatewayUnavailable: _Mapped("gateway-unavailable"),
    GatewayRefused: _Mapped("gateway-refused"),
    NoticeRefused: _Mapped("notice-refused"),
    errors.InvariantBroken: _Mapped("internal-error"),
    errors.StoreError: _Mapped("internal-error"),
    errors.StaleVersion: _Mapped("store-unavailable"),
    errors.RepeatedKey: _Mapped("store-unavailable"),
    errors.PositionMoved: _Mapped("store-unavailable"),
    errors.StoreUnavailable: _Mapped("store-unavailable"),
    errors.UnknownEventType: _Mapped("internal-error"),
    RunUnknown: _Mapped("run-unknown"),
    PhotoEventUnknown: _Mapped("photo-event-unknown"),
}

_NAME_OF_STATUS: Final = {404: "not-found", 405: "method-not-allowed"}

_MESSAGES: Final = {
    "missing": "this field is required",
    "extra_forbidden": "no such field",
    "string_unicode": "Input should be a valid string of Unicode characters",
}


@dataclass
class HttpProblem(Exception):
    """A problem of one request, ready to be sent."""

    name: str
    detail: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    available: int | None = None
    """Of `insufficient-credits`: how many there are."""

    @property
    def type(self) -> ProblemType:
        return PROBLEM_TYPES[self.name]


def invalid(field_name: str, message: str) -> HttpProblem:
    """Return the problem of one field that is at fault."""
    return of_fields([FieldError(field=field_name, message=message)])


def of_fields(faults: Sequence[FieldError]) -> HttpProblem:
    """Return the problem of fields that are at fault: it names all of them, its sentence the first few."""
    detail = "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:_TOLD_MAX])
    return HttpProblem("invalid-request", detail, faults)


def explain(error: Exception) -> HttpProblem:
    """Return the problem of any error; what is not meant for callers becomes `internal-error`."""
    if isinstance(error, HttpProblem):
        return error
    if isinstance(error, errors.LedgerError):
        return _of_ledger(error)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return _of_name("store-unavailable")
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, HTTPException) and error.status_code in _NAME_OF_STATUS:
        return _of_name(_NAME_OF_STATUS[error.status_code], error.headers or {})
    return _of_name("internal-error")


def noted(request: Request, error: Exception) -> HttpProblem:
    """Return the problem of an error, and log what an operator has to look at."""
    problem = explain(error)
    if problem.type.status >= 500:
        unexpected = problem.name == "internal-error"
        _log.log(
            logging.ERROR if unexpected else logging.WARNING,
            "%s: request %s: %s",
            problem.name,
            request.state.request_id,
            problem.detail if isinstance(error, HttpProblem) else error,
            exc_info=error if unexpected else None,
        )
    return problem


def respond(request: Request, error: Exception) -> Response:
    """Return the response of an error, which is logged where an operator has to look at it."""
    problem = noted(request, error)
    body = _document(problem, request.scope["path"][:_INSTANCE_LENGTH_MAX], request.state.request_id)
    return Response(msgspec.json.encode(body), problem.type.status, headers_of(problem), PROBLEM_MEDIA_TYPE)


def headers_of(problem: HttpProblem) -> dict[str, str]:
    """Return the headers that a problem is sent with."""
    headers = dict(problem.headers)
    if problem.type.retry_after_s is not None:
        headers["Retry-After"] = str(problem.type.retry_after_s)
    return headers


def handlers() -> dict[int | type[Exception], Handler]:
    """Return what FastAPI calls for the errors it meets; any other is met by the outermost middleware."""
    kinds = (
        HttpProblem,
        errors.LedgerError,
        psycopg.OperationalError,
        psycopg.InterfaceError,
        RequestValidationError,
        HTTPException,
    )

    async def handle(request: Request, error: Exception) -> Response:
        return respond(request, error)

    return dict.fromkeys(kinds, handle)


def responses(*names: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of problems, by status, each with an example."""
    documented: dict[int | str, dict[str, Any]] = {}
    for name in names:
        problem = PROBLEM_TYPES[name]
        entry = documented.setdefault(
            problem.status,
            {
                "content": {
                    PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
                },
            },
        )
        entry["content"][PROBLEM_MEDIA_TYPE]["examples"][name] = {
            "summary": problem.title,
            "description": problem.explanation,
            "value": _document(_example(problem), "/v1/organisations/org-4711/...", "0198f0c2-6b7e-7c3a"),
        }
        entry["description"] = (
            f"{entry['description']}; {problem.title.lower()}" if "description" in entry else problem.title
        )
        if problem.retry_after_s is not None:
            entry["headers"] = {
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
            }
    return documented


def _of_ledger(error: errors.LedgerError) -> HttpProblem:
    mapped = next(_PROBLEM_OF[each] for each in type(error).__mro__ if each in _PROBLEM_OF)
    if PROBLEM_TYPES[mapped.name].status >= 500:
        return _of_name(mapped.name)  # the sentence of such an error may quote the driver
    detail = str(error)
    if isinstance(error, errors.InvalidInput):
        faults = [FieldError(field=name, message=why) for name, why in error.faults]
        return of_fields(faults) if len(faults) > 1 else HttpProblem(mapped.name, detail, faults)
    faults = [] if mapped.field is None else [FieldError(field=mapped.field, message=detail)]
    available = error.details["available"] if isinstance(error, errors.InsufficientCredits) else None
    return HttpProblem(mapped.name, detail, faults, available=cast(int | None, available))


def _of_name(name: str, headers: Mapping[str, str] | None = None) -> HttpProblem:
    return HttpProblem(name, PROBLEM_TYPES[name].explanation.replace("`", ""), headers=headers or {})


def _of_validation(error: RequestValidationError) -> HttpProblem:
    faults = [
        FieldError(field=_field_name(fault["loc"]), message=_in_words(fault))
        for fault in error.errors()[:_ERRORS_MAX]
    ]
    return of_fields(faults)


def _in_words(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "string_pattern_mismatch":
        return PATTERNS_IN_WORDS[fault["ctx"]["pattern"]]
    return _MESSAGES.get(fault["type"], str(fault["msg"]))


def _field_name(location: Sequence[str | int]) -> str:
    """Return the name of a field without the part of the request it is in, unless that is all there is."""
    names = location[1:] or location
    return ".".join(str(each) for each in names)


def _document(problem: HttpProblem, instance: str, request_id: str) -> dict[str, object]:
    document: dict[str, object] = {
        "type": problem.type.uri,
        "title": problem.type.title,
        "status": problem.type.status,
        "detail": _encodable(problem.detail),
        "instance": instance,
        "request_id": request_id,
    }
    if problem.errors:
        document["errors"] = [
            {"field": _encodable(each.field[:_FIELD_LENGTH_MAX]), "message": _encodable(each.message)}
            for each in problem.errors
        ]
    if problem.available is not None:
        document["available"] = problem.available
    return document


def _example(problem: ProblemType) -> HttpProblem:
    mapped = next((each for each in _PROBLEM_OF.values() if each.name == problem.name), None)
    if problem.name == "invalid-request":
        return invalid("credits", "Input should be a valid integer")
    faults = [FieldError(field=mapped.field, message=problem.title)] if mapped and mapped.field else []
    available = 200 if problem.name == "insufficient-credits" else None
    return HttpProblem(problem.name, problem.explanation.replace("`", ""), faults, available=available)


def _encodable(text: str) -> str:
    """Return the text without lone surrogates, which a caller can send as \\ud800 in JSON."""
    return text.encode("utf-8", "replace").decode()
