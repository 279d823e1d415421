"""Webhook endpoints of an organisation: where it hears of its credits without asking."""

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
    """An endpoint to add."""

    url: Annotated[str, Field(min_length=1, max_length=URL_LENGTH_MAX)] = Field(
        description="An https address of the public internet.", examples=["https://example.com/credits"]
    )


class WebhookEndpoint(BaseModel):
    """Where the organisation hears of its credits."""

    endpoint_id: str = Field(description="Its id.", examples=["whe_0f3a9c5d7e21"])
    url: str = Field(description="Its address.", examples=["https://example.com/credits"])
    status: Literal["enabled", "failing", "disabled"] = Field(
        description="`failing`: the last attempt failed, and more follow; `disabled`: nothing is sent.",
        examples=["enabled"],
    )
    added_at: Instant = Field(description="When it was added.")
    added_by: str = Field(description="Who added it.", examples=["u-17"])
    added_by_name: ShownName
    failing_since: Instant | None = Field(description="Since when every attempt failed; null: it works.")
    disabled_at: Instant | None = Field(description="When it was disabled; null: it is not.")

    @classmethod
    def of(cls, endpoint: Endpoint, names: ActorNames) -> WebhookEndpoint:
        """Return an endpoint as it is shown."""
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
    """What deliveries are signed with."""

    secret: str = Field(
        description="The secret that signatures are verified with. It is shown this once.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw..."],
    )


class AddedWebhookEndpoint(WebhookEndpoint, WebhookSecret):
    """A new endpoint, with its secret."""


class QueuedTest(BaseModel):
    """A test message that is on its way."""

    message_id: str = Field(
        description="Its id: `webhook-id` of the delivery.", examples=["msg_test_9c5d7e210f3a9c5d"]
    )


class WebhookDelivery(BaseModel):
    """A message to an endpoint, and what has become of it."""

    model_config = ConfigDict(from_attributes=True)

    message_id: str = Field(
        description="`webhook-id`: the same at every attempt.",
        examples=["msg_9da2e03a-8e69-5589-8fbb-a49d6e7d9d6d_17"],
    )
    type: str = Field(description="What it tells.", examples=["credit_ledger.credits_exhausted.v1"])
    status: Literal["pending", "delivered", "given_up"] = Field(
        description="`pending`: an attempt follows.", examples=["delivered"]
    )
    created_at: Instant = Field(description="When it was queued.")
    attempts: int = Field(description="Attempts so far.", examples=[1])
    last_attempt_at: Instant | None = Field(description="When the last attempt ended.")
    last_status: int | None = Field(
        description="The HTTP status that the last one was answered with; null without an answer.",
        examples=[204],
    )
    last_error: str | None = Field(
        description="What was wrong with the last attempt.", examples=["it answered 500"]
    )
    next_attempt_at: Instant | None = Field(description="When the next attempt is due.")
    delivered_at: Instant | None = Field(description="When it was delivered.")


class WebhookDeliveries(BaseModel):
    """What was sent to an endpoint of late."""

    deliveries: Sequence[WebhookDelivery] = Field(
        description=f"The last {DELIVERIES_LISTED_MAX} deliveries, newest first."
    )


@router.post(
    "",
    operation_id="addWebhookEndpoint",
    summary="Add a webhook endpoint",
    status_code=201,
    response_description="The endpoint and its secret, shown this once.",
    responses=responses(*_PROBLEMS, *_BODY_PROBLEMS, "webhook-endpoints-exhausted"),
)
def add_webhook_endpoint(
    organisation_id: OrganisationId, body: NewEndpoint, services: ServicesDep, context: ContextDep
) -> AddedWebhookEndpoint:
    """Tell an address when the balance goes low, is exhausted or is replenished, and of every purchase.

    Deliveries have the format of Standard Webhooks. A request without an answer may have added an endpoint:
    look at the list, and remove what nobody has the secret of.
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
    """The endpoints of the organisation, without their secrets."""
    services.ledger.organisation(organisation_id)
    found = services.webhooks.of(organisation_id)
    names = services.people.names([each.added_by for each in found])
    return WebhookEndpoints(webhook_endpoints=[WebhookEndpoint.of(each, names) for each in found])


@router.delete(
    "/{endpoint_id}",
    operation_id="removeWebhookEndpoint",
    summary="Remove a webhook endpoint",
    status_code=204,
    response_description="Nothing is sent to it any more.",
    responses=responses(*_ENDPOINT_PROBLEMS),
)
def remove_webhook_endpoint(
    organisation_id: OrganisationId, endpoint_id: EndpointId, services: ServicesDep, context: ContextDep
) -> None:
    """Forget an endpoint: its address, its secrets, and what was sent to it."""
    services.webhooks.remove(organisation_id, endpoint_id, context)


@router.post(
    "/{endpoint_id}/secret",
    operation_id="rotateWebhookSecret",
    summary="Replace the secret of a webhook endpoint",
    status_code=201,
    response_description="The new secret, shown this once.",
    responses=responses(*_ENDPOINT_PROBLEMS),
)
def rotate_webhook_secret(
    organisation_id: OrganisationId, endpoint_id: EndpointId, services: ServicesDep, context: ContextDep
) -> WebhookSecret:
    """Sign with a new secret. For a day the one before signs as well, so that receivers can change over."""
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
    """Send again what happens from now on. What an endpoint missed while it was disabled is not sent."""
    services.ledger.organisation(organisation_id)
    endpoint = services.webhooks.enable(organisation_id, endpoint_id, context)
    return WebhookEndpoint.of(endpoint, services.people.names([endpoint.added_by]))


@router.post(
    "/{endpoint_id}/test",
    operation_id="testWebhookEndpoint",
    summary="Send a test message to a webhook endpoint",
    status_code=202,
    response_description="The message is on its way; the deliveries tell what becomes of it.",
    responses=responses(*_ENDPOINT_PROBLEMS, "webhook-endpoint-disabled"),
)
def test_webhook_endpoint(
    organisation_id: OrganisationId, endpoint_id: EndpointId, services: ServicesDep, context: ContextDep
) -> QueuedTest:
    """Send a message of type `credit_ledger.webhook_test.v1`, signed like any other."""
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
    """What was sent of late, and what came of it. Kept for 30 days."""
    services.ledger.organisation(organisation_id)
    found = services.webhooks.deliveries(organisation_id, endpoint_id)
    return WebhookDeliveries(deliveries=[WebhookDelivery.model_validate(each) for each in found])
