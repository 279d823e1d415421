"""Webhook endpoints of an organisation: the service sends notifications about its credits to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from api.http.bodies import Body
from api.http.dependencies import ContextDep, ServicesDep
from api.http.fields import ENDPOINT_ID_PATTERN, Instant, OrganisationId, ShownName
from api.http.problems import responses
from api.http.routes import StrictRoute
from domain.identity.people import ActorNames
from domain.webhooks.endpoints import DELIVERIES_LISTED_MAX, ENDPOINTS_MAX, Endpoint
from domain.webhooks.url_policy import URL_LENGTH_MAX

_PROBLEMS: Final = (
    "cross-site-request",
    "organisation-unknown",
    "host-not-allowed",
    "invalid-request",
    "internal-error",
    "store-unavailable",
)
_ENDPOINT_PROBLEMS: Final = (*_PROBLEMS, "webhook-endpoint-unknown")
_BODY_PROBLEMS: Final = ("malformed-json", "body-too-large", "unsupported-media-type")

EndpointId = Annotated[
    str,
    Path(pattern=ENDPOINT_ID_PATTERN, description="The id of the endpoint.", examples=["whe_0f3a9c5d7e21"]),
]

router = APIRouter(
    prefix="/v1/organisations/{organisation_id}/webhook-endpoints",
    route_class=StrictRoute,
    tags=["Webhooks"],
)


class NewEndpoint(Body):
    """A new webhook endpoint."""

    url: Annotated[str, Field(min_length=1, max_length=URL_LENGTH_MAX)] = Field(
        description="An https URL on the public internet.", examples=["https://example.com/credits"]
    )


class WebhookEndpoint(BaseModel):
    """A webhook endpoint of the organisation."""

    endpoint_id: str = Field(description="The id of the endpoint.", examples=["whe_0f3a9c5d7e21"])
    url: str = Field(description="The URL of the endpoint.", examples=["https://example.com/credits"])
    status: Literal["enabled", "failing", "disabled"] = Field(
        description="`failing`: the last attempt failed, and retries follow. `disabled`: nothing is sent.",
        examples=["enabled"],
    )
    added_at: Instant = Field(description="When the endpoint was added.")
    added_by: str = Field(description="Who added the endpoint.", examples=["u-17"])
    added_by_name: ShownName
    failing_since: Instant | None = Field(description="Every attempt failed since then; null: not failing.")
    disabled_at: Instant | None = Field(description="When the endpoint was disabled; null: not disabled.")

    @classmethod
    def of(cls, endpoint: Endpoint, names: ActorNames) -> WebhookEndpoint:
        """Return the response for an endpoint."""
        failing = "enabled" if endpoint.failing_since is None else "failing"
        status = failing if endpoint.disabled_at is None else "disabled"
        return cls(
            endpoint_id=endpoint.endpoint_id,
            url=endpoint.url,
            status=status,
            added_at=endpoint.added_at,
            added_by=endpoint.added_by,
            added_by_name=names.of(endpoint.added_by),
            failing_since=endpoint.failing_since,
            disabled_at=endpoint.disabled_at,
        )


class WebhookEndpoints(BaseModel):
    """The endpoints of an organisation."""

    webhook_endpoints: Sequence[WebhookEndpoint] = Field(
        description=f"The endpoints, oldest first; at most {ENDPOINTS_MAX}."
    )


class WebhookSecret(BaseModel):
    """The secret that signs deliveries."""

    secret: str = Field(
        description="The secret to verify signatures with. It is shown only once.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw..."],
    )


class AddedWebhookEndpoint(WebhookEndpoint, WebhookSecret):
    """A new endpoint, with its secret."""


class QueuedTest(BaseModel):
    """A test message in the queue."""

    message_id: str = Field(
        description="The `webhook-id` of the delivery.", examples=["msg_test_9c5d7e210f3a9c5d"]
    )


class WebhookDelivery(BaseModel):
    """A message to an endpoint, and the status of its delivery."""

    model_config = ConfigDict(from_attributes=True)

    message_id: str = Field(
        description="The `webhook-id`. It is the same at every attempt.",
        examples=["msg_9da2e03a-8e69-5589-8fbb-a49d6e7d9d6d_17"],
    )
    type: str = Field(description="The type of the message.", examples=["credit_ledger.credits_exhausted.v1"])
    status: Literal["pending", "delivered", "given_up"] = Field(
        description="`pending`: another attempt follows.", examples=["delivered"]
    )
    created_at: Instant = Field(description="When the message was queued.")
    attempts: int = Field(description="Attempts so far.", examples=[1])
    last_attempt_at: Instant | None = Field(description="When the last attempt ended.")
    last_status: int | None = Field(
        description="The HTTP status of the last attempt; null without a response.",
        examples=[204],
    )
    last_error: str | None = Field(description="Why the last attempt failed.", examples=["it answered 500"])
    next_attempt_at: Instant | None = Field(description="When the next attempt is due.")
    delivered_at: Instant | None = Field(description="When the message was delivered.")


class WebhookDeliveries(BaseModel):
    """The latest deliveries to an endpoint."""

    deliveries: Sequence[WebhookDelivery] = Field(
        description=f"The last {DELIVERIES_LISTED_MAX} deliveries, newest first."
    )


@router.post(
    "",
    operation_id="addWebhookEndpoint",
    summary="Add a webhook endpoint",
    status_code=201,
    response_description="The endpoint and its secret, shown only once.",
    responses=responses(*_PROBLEMS, *_BODY_PROBLEMS, "webhook-endpoints-exhausted"),
)
def add_webhook_endpoint(
    organisation_id: OrganisationId, body: NewEndpoint, services: ServicesDep, context: ContextDep
) -> AddedWebhookEndpoint:
    """Add an endpoint for notifications about low, exhausted or replenished balances, and about purchases.

    Deliveries have the format of Standard Webhooks. If a request gets no response, it may have added an
    endpoint: check the list, and remove an endpoint without a known secret.
    """
    endpoint, secret = services.webhooks.add(organisation_id, body.url, context)
    names = services.people.names([endpoint.added_by])
    return AddedWebhookEndpoint(**WebhookEndpoint.of(endpoint, names).model_dump(), secret=secret)


@router.get(
    "",
    operation_id="listWebhookEndpoints",
    summary="Webhook endpoints",
    response_description="The endpoints.",
    responses=responses(*_PROBLEMS),
)
def list_webhook_endpoints(organisation_id: OrganisationId, services: ServicesDep) -> WebhookEndpoints:
    """List the endpoints of the organisation, without their secrets."""
    services.ledger.organisation(organisation_id)
    found = services.webhooks.of(organisation_id)
    names = services.people.names([each.added_by for each in found])
    return WebhookEndpoints(webhook_endpoints=[WebhookEndpoint.of(each, names) for each in found])


@router.delete(
    "/{endpoint_id}",
    operation_id="removeWebhookEndpoint",
    summary="Remove a webhook endpoint",
    status_code=204,
    response_description="The endpoint is removed.",
    responses=responses(*_ENDPOINT_PROBLEMS),
)
def remove_webhook_endpoint(
    organisation_id: OrganisationId, endpoint_id: EndpointId, services: ServicesDep, context: ContextDep
) -> None:
    """Delete an endpoint with its URL, its secrets and its deliveries."""
    services.webhooks.remove(organisation_id, endpoint_id, context)


@router.post(
    "/{endpoint_id}/secret",
    operation_id="rotateWebhookSecret",
    summary="Replace the secret of a webhook endpoint",
    status_code=201,
    response_description="The new secret, shown only once.",
    responses=responses(*_ENDPOINT_PROBLEMS),
)
def rotate_webhook_secret(
    organisation_id: OrganisationId, endpoint_id: EndpointId, services: ServicesDep, context: ContextDep
) -> WebhookSecret:
    """Replace the secret.

    For one day, deliveries are signed with both secrets, so that receivers can change over.
    """
    return WebhookSecret(secret=services.webhooks.rotate_secret(organisation_id, endpoint_id, context))


@router.post(
    "/{endpoint_id}/enable",
    operation_id="enableWebhookEndpoint",
    summary="Enable a webhook endpoint",
    response_description="The endpoint.",
    responses=responses(*_ENDPOINT_PROBLEMS),
)
def enable_webhook_endpoint(
    organisation_id: OrganisationId, endpoint_id: EndpointId, services: ServicesDep, context: ContextDep
) -> WebhookEndpoint:
    """Enable an endpoint. It receives new messages only: messages from the disabled time are not sent."""
    services.ledger.organisation(organisation_id)
    endpoint = services.webhooks.enable(organisation_id, endpoint_id, context)
    return WebhookEndpoint.of(endpoint, services.people.names([endpoint.added_by]))


@router.post(
    "/{endpoint_id}/test",
    operation_id="testWebhookEndpoint",
    summary="Send a test message to a webhook endpoint",
    status_code=202,
    response_description="The message is queued. The list of deliveries shows its status.",
    responses=responses(*_ENDPOINT_PROBLEMS, "webhook-endpoint-disabled"),
)
def test_webhook_endpoint(
    organisation_id: OrganisationId, endpoint_id: EndpointId, services: ServicesDep, context: ContextDep
) -> QueuedTest:
    """Send a message of type `credit_ledger.webhook_test.v1`, signed like every message."""
    services.ledger.organisation(organisation_id)
    return QueuedTest(message_id=services.webhooks.send_test(organisation_id, endpoint_id, context))


@router.get(
    "/{endpoint_id}/deliveries",
    operation_id="listWebhookDeliveries",
    summary="Deliveries of a webhook endpoint",
    response_description="The deliveries.",
    responses=responses(*_ENDPOINT_PROBLEMS),
)
def list_webhook_deliveries(
    organisation_id: OrganisationId, endpoint_id: EndpointId, services: ServicesDep
) -> WebhookDeliveries:
    """List the latest deliveries and their status. Deliveries are stored for 30 days."""
    services.ledger.organisation(organisation_id)
    found = services.webhooks.deliveries(organisation_id, endpoint_id)
    return WebhookDeliveries(deliveries=[WebhookDelivery.model_validate(each) for each in found])
