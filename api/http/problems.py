"""RFC 9457 problems, and the only map from errors to problems."""

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

from api.http.fields import PATTERN_DESCRIPTIONS
from api.http.problem_types import PROBLEM_TYPES, FieldError, ProblemType
from domain.credits import errors as credit_errors
from domain.identity import errors as identity_errors
from domain.invoicing import errors as invoice_errors
from domain.payments import errors as payment_errors
from domain.payments.gateway import (
    GatewayError,
    GatewayRefused,
    GatewayUnavailable,
    InvalidWebhookSignature,
)
from domain.shared import errors as shared_errors
from domain.webhooks import errors as webhook_errors
from projections.query.errors import PhotoEventNotFound, RunNotFound

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_FIELD_LENGTH_MAX: Final = 128
_INSTANCE_LENGTH_MAX: Final = 1_024
_ERRORS_MAX: Final = 20
_DETAIL_FIELDS_MAX: Final = 3

Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

_log = logging.getLogger("api")


@dataclass(frozen=True)
class _ProblemMapping:
    """The problem type of a domain error, and the field of the request that causes it."""

    name: str
    field: str | None = None


# The most specific class of an error decides.
_PROBLEM_BY_ERROR: Final[Mapping[type[shared_errors.LedgerError], _ProblemMapping]] = {
    shared_errors.LedgerError: _ProblemMapping("internal-error"),
    credit_errors.OrganisationNotFound: _ProblemMapping("organisation-unknown"),
    credit_errors.OrganisationAlreadyOpen: _ProblemMapping("organisation-already-open"),
    shared_errors.InvalidInput: _ProblemMapping("invalid-request"),
    credit_errors.CurrencyMismatch: _ProblemMapping("currency-mismatch", "currency"),
    credit_errors.PurchaseAlreadyRecorded: _ProblemMapping("purchase-already-recorded", "payment_id"),
    credit_errors.ChargeNotFound: _ProblemMapping("charge-unknown", "charge"),
    credit_errors.RefundExceedsCharge: _ProblemMapping("refund-exceeds-charge", "credits"),
    credit_errors.InsufficientCredits: _ProblemMapping("insufficient-credits", "credits"),
    credit_errors.HoldNotFound: _ProblemMapping("hold-unknown"),
    credit_errors.HoldClosed: _ProblemMapping("hold-closed"),
    credit_errors.HoldConflict: _ProblemMapping("hold-conflict", "run_id"),
    webhook_errors.WebhookEndpointNotFound: _ProblemMapping("webhook-endpoint-unknown"),
    webhook_errors.WebhookEndpointLimitReached: _ProblemMapping("webhook-endpoints-exhausted"),
    webhook_errors.WebhookEndpointNotEnabled: _ProblemMapping("webhook-endpoint-disabled"),
    identity_errors.PersonNotFound: _ProblemMapping("person-unknown"),
    identity_errors.PersonErased: _ProblemMapping("person-erased"),
    shared_errors.IdempotencyConflict: _ProblemMapping("idempotency-conflict", "Idempotency-Key"),
    shared_errors.PriceVersionNotFound: _ProblemMapping("internal-error"),
    payment_errors.BillingDetailsMissing: _ProblemMapping("billing-details-missing"),
    invoice_errors.InvoiceNotFound: _ProblemMapping("invoice-unknown"),
    invoice_errors.PaymentNotInvoiceable: _ProblemMapping("nothing-to-invoice"),
    payment_errors.QuoteNotFound: _ProblemMapping("quote-unknown", "quote_id"),
    payment_errors.QuoteExpired: _ProblemMapping("quote-expired", "quote_id"),
    payment_errors.ProAlreadyActive: _ProblemMapping("pro-already", "plan"),
    payment_errors.BilledByAgreement: _ProblemMapping("billing-is-custom"),
    credit_errors.AutoTopUpAlreadyOn: _ProblemMapping("auto-top-up-is-on"),
    credit_errors.AutoTopUpNotOn: _ProblemMapping("auto-top-up-is-off"),
    payment_errors.GatewayNotFound: _ProblemMapping("gateway-unknown", "gateway"),
    payment_errors.PaymentNotFound: _ProblemMapping("payment-unknown"),
    payment_errors.PaymentClosed: _ProblemMapping("payment-closed"),
    payment_errors.PaymentNotRefundable: _ProblemMapping("payment-not-refundable"),
    credit_errors.RefundExceedsPurchase: _ProblemMapping("refund-exceeds-purchase", "credits"),
    payment_errors.RefundExceedsRefundableFee: _ProblemMapping("refund-exceeds-payment", "amount_minor"),
    payment_errors.FlagNotOpen: _ProblemMapping("flag-not-open", "flag"),
    GatewayError: _ProblemMapping("internal-error"),
    GatewayUnavailable: _ProblemMapping("gateway-unavailable"),
    GatewayRefused: _ProblemMapping("gateway-refused"),
    InvalidWebhookSignature: _ProblemMapping("notice-refused"),
    shared_errors.InvariantViolation: _ProblemMapping("internal-error"),
    shared_errors.StoreError: _ProblemMapping("internal-error"),
    shared_errors.VersionConflict: _ProblemMapping("store-unavailable"),
    shared_errors.DuplicateKey: _ProblemMapping("store-unavailable"),
    shared_errors.CheckpointConflict: _ProblemMapping("store-unavailable"),
    shared_errors.StoreUnavailable: _ProblemMapping("store-unavailable"),
    shared_errors.UnknownEventType: _ProblemMapping("internal-error"),
    RunNotFound: _ProblemMapping("run-unknown"),
    PhotoEventNotFound: _ProblemMapping("photo-event-unknown"),
}

_NAME_OF_STATUS: Final = {404: "not-found", 405: "method-not-allowed"}

_MESSAGES: Final = {
    "missing": "this field is required",
    "extra_forbidden": "this field does not exist",
    "string_unicode": "Input should be a valid string of Unicode characters",
}


@dataclass
class HttpProblem(Exception):
    """A problem of one request, ready to send."""

    name: str
    detail: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    available: int | None = None
    """For `insufficient-credits`: the available credits."""

    @property
    def type(self) -> ProblemType:
        return PROBLEM_TYPES[self.name]


def invalid(field_name: str, message: str) -> HttpProblem:
    """Return the problem for one invalid field."""
    return invalid_fields([FieldError(field=field_name, message=message)])


def invalid_fields(field_errors: Sequence[FieldError]) -> HttpProblem:
    """Return the problem for invalid fields. `errors` has all fields; the detail names the first few."""
    detail = "; ".join(
        f"{field_error.field}: {field_error.message}" for field_error in field_errors[:_DETAIL_FIELDS_MAX]
    )
    return HttpProblem("invalid-request", detail, field_errors)


def problem_of(error: Exception) -> HttpProblem:
    """Return the problem for any error. An error that is not meant for callers becomes `internal-error`."""
    if isinstance(error, HttpProblem):
        return error
    if isinstance(error, shared_errors.LedgerError):
        return _from_ledger_error(error)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return _from_name("store-unavailable")
    if isinstance(error, RequestValidationError):
        return _from_validation_error(error)
    if isinstance(error, HTTPException) and error.status_code in _NAME_OF_STATUS:
        return _from_name(_NAME_OF_STATUS[error.status_code], error.headers or {})
    return _from_name("internal-error")


def log_and_map(request: Request, error: Exception) -> HttpProblem:
    """Return the problem for an error. Logs problems with status 500 and above for operators."""
    problem = problem_of(error)
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
    """Return the response for an error. Logs problems with status 500 and above for operators."""
    problem = log_and_map(request, error)
    body = _document(problem, request.scope["path"][:_INSTANCE_LENGTH_MAX], request.state.request_id)
    return Response(msgspec.json.encode(body), problem.type.status, headers_of(problem), PROBLEM_MEDIA_TYPE)


def headers_of(problem: HttpProblem) -> dict[str, str]:
    """Return the response headers of a problem."""
    headers = dict(problem.headers)
    if problem.type.retry_after_s is not None:
        headers["Retry-After"] = str(problem.type.retry_after_s)
    return headers


def handlers() -> dict[int | type[Exception], Handler]:
    """Return FastAPI's error handlers. The outermost middleware handles every other error."""
    kinds = (
        HttpProblem,
        shared_errors.LedgerError,
        psycopg.OperationalError,
        psycopg.InterfaceError,
        RequestValidationError,
        HTTPException,
    )

    async def handle(request: Request, error: Exception) -> Response:
        return respond(request, error)

    return dict.fromkeys(kinds, handle)


def responses(*names: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of problem types, by status, each with an example."""
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


def _from_ledger_error(error: shared_errors.LedgerError) -> HttpProblem:
    mapped = next(_PROBLEM_BY_ERROR[each] for each in type(error).__mro__ if each in _PROBLEM_BY_ERROR)
    if PROBLEM_TYPES[mapped.name].status >= 500:
        return _from_name(mapped.name)  # the text of such an error may contain internals of the driver
    detail = str(error)
    if isinstance(error, shared_errors.InvalidInput):
        field_errors = [FieldError(field=name, message=message) for name, message in error.field_errors]
        return (
            invalid_fields(field_errors)
            if len(field_errors) > 1
            else HttpProblem(mapped.name, detail, field_errors)
        )
    field_errors = [] if mapped.field is None else [FieldError(field=mapped.field, message=detail)]
    available = error.details["available"] if isinstance(error, credit_errors.InsufficientCredits) else None
    return HttpProblem(mapped.name, detail, field_errors, available=cast("int | None", available))


def _from_name(name: str, headers: Mapping[str, str] | None = None) -> HttpProblem:
    return HttpProblem(name, PROBLEM_TYPES[name].explanation.replace("`", ""), headers=headers or {})


def _from_validation_error(error: RequestValidationError) -> HttpProblem:
    field_errors = [
        FieldError(field=_field_name(validation_error["loc"]), message=_field_message(validation_error))
        for validation_error in error.errors()[:_ERRORS_MAX]
    ]
    return invalid_fields(field_errors)


def _field_message(validation_error: Mapping[str, Any]) -> str:
    if validation_error["type"] == "string_pattern_mismatch":
        return PATTERN_DESCRIPTIONS[validation_error["ctx"]["pattern"]]
    return _MESSAGES.get(validation_error["type"], str(validation_error["msg"]))


def _field_name(location: Sequence[str | int]) -> str:
    """Return the name of a field without its location (body, query), unless the location is all there is."""
    names = location[1:] or location
    return ".".join(str(each) for each in names)


def _document(problem: HttpProblem, instance: str, request_id: str) -> dict[str, object]:
    document: dict[str, object] = {
        "type": problem.type.uri,
        "title": problem.type.title,
        "status": problem.type.status,
        "detail": _without_surrogates(problem.detail),
        "instance": instance,
        "request_id": request_id,
    }
    if problem.errors:
        document["errors"] = [
            {
                "field": _without_surrogates(each.field[:_FIELD_LENGTH_MAX]),
                "message": _without_surrogates(each.message),
            }
            for each in problem.errors
        ]
    if problem.available is not None:
        document["available"] = problem.available
    return document


def _example(problem: ProblemType) -> HttpProblem:
    mapped = next((each for each in _PROBLEM_BY_ERROR.values() if each.name == problem.name), None)
    if problem.name == "invalid-request":
        return invalid("credits", "Input should be a valid integer")
    field_errors = [FieldError(field=mapped.field, message=problem.title)] if mapped and mapped.field else []
    available = 200 if problem.name == "insufficient-credits" else None
    return HttpProblem(problem.name, problem.explanation.replace("`", ""), field_errors, available=available)


def _without_surrogates(text: str) -> str:
    """Return the text without lone surrogates. A caller can send them as \\ud800 in JSON."""
    return text.encode("utf-8", "replace").decode()
