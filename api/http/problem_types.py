"""The problem types of the API: names, statuses, titles and explanations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, Field


class FieldError(BaseModel):
    """An error in one field of the request."""

    field: str = Field(
        description="The field of the body, query parameter, path parameter or header.", examples=["credits"]
    )
    message: str = Field(
        description="What the field should be.", examples=["Input should be a valid integer"]
    )


class Problem(BaseModel):
    """An error in the format of RFC 9457."""

    type: str = Field(
        description="The problem type. Its URI returns an explanation.",
        examples=["/problems/organisation-unknown"],
    )
    title: str = Field(description="The title of the problem type.", examples=["Organisation unknown"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(
        description="What happened in this request.", examples=["no organisation has the id 'org-1'"]
    )
    instance: str = Field(
        description="The path of the request.", examples=["/v1/organisations/org-1/balance"]
    )
    request_id: str = Field(
        description="The id of the request. Give it to support.", examples=["0198f0c2-6b7e-7c3a"]
    )
    errors: list[FieldError] | None = Field(
        default=None, description="The fields with errors, if there are any."
    )
    available: int | None = Field(
        default=None, description="For `insufficient-credits`: the available credits.", examples=[200]
    )


@dataclass(frozen=True)
class ProblemType:
    """A problem type. `explanation` is for readers who do not know it yet."""

    name: str
    status: int
    title: str
    explanation: str
    retry_after_s: int | None = None

    @property
    def uri(self) -> str:
        return f"/problems/{self.name}"


_TYPES: Final = (
    ProblemType(
        "malformed-json",
        400,
        "Malformed JSON",
        "The request body must be one JSON document in UTF-8, without NaN, Infinity or repeated field names.",
    ),
    ProblemType(
        "pro-already",
        400,
        "Already on Pro",
        "The organisation already has a Pro subscription. It can buy a new one after the current one has"
        " ended.",
    ),
    ProblemType(
        "credentials-missing",
        401,
        "Credentials missing",
        "The request has no credentials. Send a bearer token in `Authorization`, or an API key in"
        " `X-API-Key`.",
    ),
    ProblemType(
        "credentials-refused",
        401,
        "Credentials refused",
        "The token or the API key is invalid, expired or revoked, or the request has more than one.",
    ),
    ProblemType(
        "insufficient-credits",
        402,
        "Insufficient credits",
        "The hold requests more credits than are available. A grant or a purchase adds credits.",
    ),
    ProblemType(
        "cross-site-request",
        403,
        "Cross-site request",
        "A browser sent the request on behalf of another site. The service accepts only requests of its own"
        " pages.",
    ),
    ProblemType(
        "form-expired",
        403,
        "Form expired",
        "A form was sent without the token of its session. Reload the page and send the form again.",
    ),
    ProblemType(
        "role-insufficient",
        403,
        "Role insufficient",
        "Your role does not allow this operation. The description of the operation lists the allowed roles.",
    ),
    ProblemType("not-found", 404, "Not found", "This path does not exist. /docs lists all operations."),
    ProblemType(
        "organisation-unknown",
        404,
        "Organisation unknown",
        "No organisation with this id is open, or you do not belong to it, or the projections do not have it"
        " yet: pass `min_position` to read your own write.",
    ),
    ProblemType(
        "photo-event-unknown",
        404,
        "Photo event unknown",
        "The organisation has no usage of a photo event with this id.",
    ),
    ProblemType("run-unknown", 404, "Run unknown", "The organisation has no usage of a run with this id."),
    ProblemType(
        "api-key-unknown", 404, "API key unknown", "The organisation has no active API key with this id."
    ),
    ProblemType(
        "webhook-endpoint-unknown",
        404,
        "Webhook endpoint unknown",
        "The organisation has no webhook endpoint with this id.",
    ),
    ProblemType("person-unknown", 404, "Person unknown", "No person with this id is stored."),
    ProblemType("hold-unknown", 404, "Hold unknown", "The organisation has no hold with this id."),
    ProblemType(
        "invoice-unknown",
        404,
        "Invoice unknown",
        "The organisation has no invoice or credit note with this number.",
    ),
    ProblemType(
        "payment-unknown",
        404,
        "Payment unknown",
        "The organisation has no payment with this id, or a gateway reports an order that is not known yet.",
    ),
    ProblemType(
        "method-not-allowed",
        405,
        "Method not allowed",
        "The path exists, but does not accept this method. The `Allow` header lists the accepted methods.",
    ),
    ProblemType(
        "api-keys-exhausted",
        409,
        "Too many API keys",
        "An organisation can have 10 active API keys. Revoke one that you no longer use.",
    ),
    ProblemType(
        "webhook-endpoints-exhausted",
        409,
        "Too many webhook endpoints",
        "An organisation can have 5 webhook endpoints. Remove one that you no longer use.",
    ),
    ProblemType(
        "webhook-endpoint-disabled",
        409,
        "Webhook endpoint disabled",
        "The endpoint is disabled: it failed for days, or returned 410 Gone. Enable it first.",
    ),
    ProblemType(
        "person-erased",
        409,
        "Person erased",
        "The person was erased. This is final: a person who returns gets a new id.",
    ),
    ProblemType(
        "organisation-already-open",
        409,
        "Organisation already open",
        "The organisation is already open. An organisation can be opened only once.",
    ),
    ProblemType(
        "purchase-already-recorded",
        409,
        "Purchase already recorded",
        "The payment has already added its credits. A payment counts only once, with any idempotency key.",
    ),
    ProblemType(
        "currency-mismatch",
        409,
        "Currency mismatch",
        "The currency of the purchase is not the currency of the organisation.",
    ),
    ProblemType(
        "refund-exceeds-charge",
        409,
        "Refund exceeds charge",
        "The refunds of a charge cannot return more credits than it charged. Fewer credits remain than"
        " requested.",
    ),
    ProblemType(
        "quote-expired",
        409,
        "Quote expired",
        "A quote is valid for half an hour. Request a new one; its price may differ.",
    ),
    ProblemType(
        "billing-is-custom",
        409,
        "Billing by agreement",
        "The organisation is billed by agreement and cannot buy here. Contact support.",
    ),
    ProblemType(
        "payment-closed",
        409,
        "Payment closed",
        "The payment is already paid or has failed, so it cannot be abandoned.",
    ),
    ProblemType(
        "payment-not-refundable",
        409,
        "Payment not refundable",
        "The payment is not paid, or it has nothing of the requested kind to refund.",
    ),
    ProblemType(
        "refund-exceeds-purchase",
        409,
        "Refund exceeds purchase",
        "Only unspent credits of a purchase can be refunded. Held credits and refunded credits cannot.",
    ),
    ProblemType(
        "refund-exceeds-payment",
        409,
        "Refund exceeds payment",
        "An amount refund cannot exceed the paid fee that was not refunded yet. Refund credits as credits.",
    ),
    ProblemType(
        "flag-not-open",
        409,
        "Flag not open",
        "The payment has no such flag, the flag is already settled, or a refund is in progress.",
    ),
    ProblemType(
        "hold-closed",
        409,
        "Hold closed",
        "The hold was settled or released, or it has expired. A run can have only one hold.",
    ),
    ProblemType(
        "hold-conflict",
        409,
        "Hold conflict",
        "The run already has an open hold with other credits, another usage type or another mode.",
    ),
    ProblemType(
        "billing-details-missing",
        409,
        "Billing details missing",
        "An invoice needs the organisation's billing details. Save them first.",
    ),
    ProblemType(
        "nothing-to-invoice",
        409,
        "Nothing to invoice",
        "The organisation has no completed payment with this id. Only completed payments have an invoice.",
    ),
    ProblemType(
        "body-too-large",
        413,
        "Body too large",
        "A request body can have at most 65,536 bytes.",
    ),
    ProblemType(
        "unsupported-media-type",
        415,
        "Unsupported media type",
        "Writes need a JSON body with `Content-Type: application/json`, in UTF-8 and without a"
        " `Content-Encoding`. An empty body is an error, too.",
    ),
    ProblemType(
        "host-not-allowed",
        421,
        "Host not allowed",
        "The `Host` header does not name this server.",
    ),
    ProblemType(
        "invalid-request",
        422,
        "Invalid request",
        "A field is missing, unknown, repeated, out of range or has the wrong type. `errors` names the"
        " field.",
    ),
    ProblemType(
        "notice-refused",
        422,
        "Gateway webhook refused",
        "The webhook request of a payment gateway has no valid signature, or it cannot be parsed.",
    ),
    ProblemType(
        "quote-unknown",
        422,
        "Quote unknown",
        "The organisation has no quote with this id. `purchase-quotes` creates one.",
    ),
    ProblemType(
        "auto-top-up-is-on",
        409,
        "Auto top-up is on",
        "Auto top-up is already on. You can change its terms. To use another card, switch it off first.",
    ),
    ProblemType(
        "auto-top-up-is-off",
        409,
        "Auto top-up is off",
        "Auto top-up is off, so it cannot be changed. A purchase with auto top-up switches it on.",
    ),
    ProblemType(
        "gateway-unknown",
        422,
        "Gateway unknown",
        "No payment gateway with this name is configured, or it does not accept the organisation's currency.",
    ),
    ProblemType(
        "charge-unknown",
        422,
        "Charge unknown",
        "The refund names a version that is not a charge of this organisation."
        " `transactions/{run_id}/charges` lists the charges of a run with their versions.",
    ),
    ProblemType(
        "idempotency-conflict",
        422,
        "Idempotency key conflict",
        "The `Idempotency-Key` was used for a different request to the same path. A new request needs a new"
        " key.",
    ),
    ProblemType(
        "too-many-requests",
        429,
        "Too many requests",
        "You, or all callers of the organisation together, sent more requests per minute than"
        " `RateLimit-Policy` allows. Wait as long as `Retry-After` says.",
    ),
    ProblemType(
        "internal-error",
        500,
        "Internal error",
        "The server failed. Its log has the reason under the request id.",
    ),
    ProblemType(
        "gateway-refused",
        502,
        "Gateway refused",
        "The payment gateway refused the request. A retry would be refused again.",
    ),
    ProblemType(
        "gateway-unavailable",
        503,
        "Gateway unavailable",
        "The payment gateway does not respond. The request may or may not have taken effect. Retry with the"
        " same `Idempotency-Key`, if the request had one.",
        retry_after_s=5,
    ),
    ProblemType(
        "projection-behind",
        503,
        "Projection behind",
        "The projections have not reached `min_position` in time. The write is safe: retry shortly.",
        retry_after_s=1,
    ),
    ProblemType(
        "store-unavailable",
        503,
        "Store unavailable",
        "The database is unavailable or too busy. A write may or may not have taken effect: repeat it with"
        " the same `Idempotency-Key`.",
        retry_after_s=1,
    ),
    ProblemType(
        "identities-unavailable",
        503,
        "Token issuer unavailable",
        "The issuer of the tokens does not respond, so the token cannot be verified.",
        retry_after_s=5,
    ),
    ProblemType(
        "not-ready",
        503,
        "Not ready",
        "A part of the service is not ready. `errors` names it.",
        retry_after_s=1,
    ),
)

PROBLEM_TYPES: Final[Mapping[str, ProblemType]] = {each.name: each for each in _TYPES}
