"""The kinds of problems the API answers with: their names, statuses, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, Field


class FieldError(BaseModel):
    """What is wrong with one field of the request."""

    field: str = Field(
        description="The field of the body, query parameter, path parameter or header.", examples=["credits"]
    )
    message: str = Field(description="What it should be.", examples=["Input should be a valid integer"])


class Problem(BaseModel):
    """An error, as RFC 9457 describes it."""

    type: str = Field(
        description="What kind of problem this is; the URI explains it.",
        examples=["/problems/organisation-unknown"],
    )
    title: str = Field(description="The kind of problem in words.", examples=["Organisation unknown"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(
        description="What happened this time.", examples=["no organisation has the id 'org-1'"]
    )
    instance: str = Field(
        description="The path that was asked for.", examples=["/v1/organisations/org-1/balance"]
    )
    request_id: str = Field(
        description="The id of this request; quote it to support.", examples=["0198f0c2-6b7e-7c3a"]
    )
    errors: list[FieldError] | None = Field(default=None, description="The fields at fault, if any are.")
    available: int | None = Field(
        default=None, description="Of insufficient credits: how many are available.", examples=[200]
    )


@dataclass(frozen=True)
class ProblemType:
    """A kind of problem: `explanation` is a sentence for who meets it for the first time."""

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
        "The request body is not one JSON document: UTF-8, no NaN or Infinity, no repeated field names.",
    ),
    ProblemType(
        "pro-already",
        400,
        "Pro already",
        "The organisation has the Pro subscription; it can be bought again when that has ended.",
    ),
    ProblemType(
        "credentials-missing",
        401,
        "Credentials missing",
        "The request says not who sends it: it needs a bearer token in `Authorization`, or an API key in"
        " `X-API-Key`.",
    ),
    ProblemType(
        "credentials-refused",
        401,
        "Credentials refused",
        "The token or the key is wrong, has expired or was revoked, or there is more than one.",
    ),
    ProblemType(
        "insufficient-credits",
        402,
        "Insufficient credits",
        "Fewer credits are available than the hold asks for; a grant or a purchase adds some.",
    ),
    ProblemType(
        "cross-site-request",
        403,
        "Cross-site request",
        "A browser sent the request on behalf of another site; the API answers its own pages only.",
    ),
    ProblemType(
        "form-expired",
        403,
        "Form expired",
        "A form of the pages was sent without the token of the session that it belongs to.",
    ),
    ProblemType(
        "role-insufficient",
        403,
        "Role insufficient",
        "You are known, and what you are does not allow this operation; its description says who may.",
    ),
    ProblemType("not-found", 404, "Not found", "Nothing has this address; /docs lists what there is."),
    ProblemType(
        "organisation-unknown",
        404,
        "Organisation unknown",
        "No organisation with this id is open or it is none of yours, or a read has not caught up with its"
        " opening: pass `min_position` to read your own write.",
    ),
    ProblemType(
        "photo-event-unknown",
        404,
        "Photo event unknown",
        "The organisation has no usage of a photo event with this id.",
    ),
    ProblemType("run-unknown", 404, "Run unknown", "The organisation has no usage of a run with this id."),
    ProblemType(
        "api-key-unknown", 404, "API key unknown", "The organisation has no live API key with this id."
    ),
    ProblemType(
        "webhook-endpoint-unknown",
        404,
        "Webhook endpoint unknown",
        "The organisation has no webhook endpoint with this id.",
    ),
    ProblemType("person-unknown", 404, "Person unknown", "Nobody has told of a person with this id."),
    ProblemType("hold-unknown", 404, "Hold unknown", "The organisation has never had a hold of this id."),
    ProblemType(
        "invoice-unknown",
        404,
        "Invoice unknown",
        "The organisation has no invoice or credit note of this number.",
    ),
    ProblemType(
        "payment-unknown",
        404,
        "Payment unknown",
        "The organisation has no payment of this id, or the gateway tells of an order that is not known yet.",
    ),
    ProblemType(
        "method-not-allowed",
        405,
        "Method not allowed",
        "The address exists, but not with this method; the `Allow` header lists the ones it takes.",
    ),
    ProblemType(
        "api-keys-exhausted",
        409,
        "API keys exhausted",
        "An organisation has at most 10 live API keys; revoke one that is not used any more.",
    ),
    ProblemType(
        "webhook-endpoints-exhausted",
        409,
        "Webhook endpoints exhausted",
        "An organisation has at most 5 webhook endpoints; remove one that is not used any more.",
    ),
    ProblemType(
        "webhook-endpoint-disabled",
        409,
        "Webhook endpoint disabled",
        "Nothing is sent to the endpoint: it failed for days, or said that it is gone. Enable it first.",
    ),
    ProblemType(
        "person-erased",
        409,
        "Person erased",
        "The person was erased, and stays so: somebody who comes back gets a new id.",
    ),
    ProblemType(
        "organisation-already-open",
        409,
        "Organisation already open",
        "An organisation is opened once; this one is open already.",
    ),
    ProblemType(
        "purchase-already-recorded",
        409,
        "Purchase already recorded",
        "A payment adds its credits once, whatever idempotency key the request carries.",
    ),
    ProblemType(
        "currency-mismatch",
        409,
        "Currency mismatch",
        "The purchase was paid in another currency than the organisation's account is kept in.",
    ),
    ProblemType(
        "refund-exceeds-charge",
        409,
        "Refund exceeds charge",
        "All refunds of a charge together return at most what it charged; less than asked for is left.",
    ),
    ProblemType(
        "quote-expired",
        409,
        "Quote expired",
        "A quote is kept to for half an hour; ask for a new one, which may cost something else.",
    ),
    ProblemType(
        "billing-is-custom",
        409,
        "Billing is custom",
        "The organisation is billed by agreement and buys nothing here; ask support.",
    ),
    ProblemType(
        "payment-closed",
        409,
        "Payment closed",
        "The payment is paid or has failed: there is nothing to give up.",
    ),
    ProblemType(
        "payment-not-refundable",
        409,
        "Payment not refundable",
        "The payment is not paid, or it took nothing of the kind that is to go back.",
    ),
    ProblemType(
        "refund-exceeds-purchase",
        409,
        "Refund exceeds purchase",
        "Only unspent credits of a purchase can be taken back: not those on hold, nor any taken back.",
    ),
    ProblemType(
        "refund-exceeds-payment",
        409,
        "Refund exceeds payment",
        "Only what was paid for no credits, and has not gone back, can be given back as an amount.",
    ),
    ProblemType(
        "flag-not-open",
        409,
        "Flag not open",
        "The payment has no such flag, it is settled, or its money is on its way back.",
    ),
    ProblemType(
        "hold-closed",
        409,
        "Hold closed",
        "A run has one hold in its life; this one was settled, released, or has lapsed.",
    ),
    ProblemType(
        "hold-conflict",
        409,
        "Hold asked for differently",
        "The run has an open hold for another number of credits, another usage or another mode.",
    ),
    ProblemType(
        "billing-details-missing",
        409,
        "Billing details missing",
        "An invoice is made out to somebody: put the organisation's billing details on file first.",
    ),
    ProblemType(
        "nothing-to-invoice",
        409,
        "Nothing to invoice",
        "The organisation has no payment of this id, or nobody has paid it: only completed payments have an"
        " invoice.",
    ),
    ProblemType(
        "body-too-large",
        413,
        "Body too large",
        "A request body has at most 65,536 bytes, however it is sent.",
    ),
    ProblemType(
        "unsupported-media-type",
        415,
        "Unsupported media type",
        "Writes send `Content-Type: application/json`, in UTF-8 and without a `Content-Encoding`; nothing"
        " else is read, not even an empty body.",
    ),
    ProblemType(
        "host-not-allowed",
        421,
        "Host not allowed",
        "The `Host` header names a machine this server does not answer for.",
    ),
    ProblemType(
        "invalid-request",
        422,
        "Invalid request",
        "A field is missing, unknown, repeated, of the wrong type or out of range; `errors` names it.",
    ),
    ProblemType(
        "notice-refused",
        422,
        "Notice refused",
        "What claims to come from a payment gateway is not signed by it, or cannot be read.",
    ),
    ProblemType(
        "quote-unknown",
        422,
        "Quote unknown",
        "The organisation has no quote of this id; `purchase-quotes` makes one.",
    ),
    ProblemType(
        "auto-top-up-is-on",
        409,
        "Auto top-up is on",
        "It can be changed as it is; for another card, switch it off first.",
    ),
    ProblemType(
        "auto-top-up-is-off",
        409,
        "Auto top-up is off",
        "There is nothing to change or to switch off: a purchase with auto top-up switches it on.",
    ),
    ProblemType(
        "gateway-unknown",
        422,
        "Gateway unknown",
        "No payment gateway of this name is set up here, or it does not take the organisation's currency.",
    ),
    ProblemType(
        "charge-unknown",
        422,
        "Charge unknown",
        "The version that the refund names is not a charge of this organisation;"
        " `transactions/{run_id}/charges` lists a run's charges with their versions.",
    ),
    ProblemType(
        "idempotency-conflict",
        422,
        "Idempotency key used before",
        "The `Idempotency-Key` was used for another request to the same address; a new request needs a new"
        " key.",
    ),
    ProblemType(
        "too-many-requests",
        429,
        "Too many requests",
        "Whoever asks, or everybody who asks about the organisation, sent more requests in a minute than the"
        " `RateLimit-Policy` header allows; `Retry-After` says when to go on.",
    ),
    ProblemType(
        "internal-error",
        500,
        "Internal error",
        "The server failed; the request id finds the reason in its log.",
    ),
    ProblemType(
        "gateway-refused",
        502,
        "Gateway refused",
        "The payment gateway refused what was asked of it, and would again.",
    ),
    ProblemType(
        "gateway-unavailable",
        503,
        "Gateway unavailable",
        "The payment gateway does not answer. What was asked may or may not have happened; ask again, with"
        " the same `Idempotency-Key` where there was one.",
        retry_after_s=5,
    ),
    ProblemType(
        "projection-behind",
        503,
        "Projection behind",
        "The views have not reached `min_position` in time; the write is safe, ask again shortly.",
        retry_after_s=1,
    ),
    ProblemType(
        "store-unavailable",
        503,
        "Store unavailable",
        "The database cannot be reached or is too busy. A write may or may not have happened: repeat it with"
        " the same `Idempotency-Key`.",
        retry_after_s=1,
    ),
    ProblemType(
        "identities-unavailable",
        503,
        "Identities unavailable",
        "The issuer of the tokens does not answer, so who asks cannot be found out.",
        retry_after_s=5,
    ),
    ProblemType(
        "not-ready",
        503,
        "Not ready",
        "A part of the service is not ready; `errors` names it.",
        retry_after_s=1,
    ),
)

PROBLEM_TYPES: Final[Mapping[str, ProblemType]] = {each.name: each for each in _TYPES}
