"""API keys of an organisation: create one, list the active ones, revoke one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Final

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from api.http.bodies import Body
from api.http.dependencies import ContextDep, ServicesDep
from api.http.fields import KEY_ID_PATTERN, Instant, Name, OrganisationId, ShownName
from api.http.problems import HttpProblem, responses
from api.http.routes import StrictRoute
from domain.identity.people import ActorNames
from domain.identity.principals import API_KEYS_MAX, ApiKey, ApiKeyNotFound, ApiKeysExhausted

_PROBLEMS: Final = (
    "cross-site-request",
    "organisation-unknown",
    "host-not-allowed",
    "invalid-request",
    "internal-error",
    "store-unavailable",
)
_BODY_PROBLEMS: Final = ("malformed-json", "body-too-large", "unsupported-media-type")

KeyId = Annotated[
    str,
    Path(pattern=KEY_ID_PATTERN, description="The id of the key.", examples=["0f3a9c5d7e21"]),
]

router = APIRouter(
    prefix="/v1/organisations/{organisation_id}/api-keys", route_class=StrictRoute, tags=["API keys"]
)


class NewKey(Body):
    """A new API key."""

    name: Name = Field(description="The purpose of the key.", examples=["nightly export"])


class Key(BaseModel):
    """An active API key. It can read the data of its organisation."""

    key_id: str = Field(
        description="The id, which is also the visible part of the key.", examples=["0f3a9c5d7e21"]
    )
    name: str = Field(description="The purpose of the key.", examples=["nightly export"])
    created_at: Instant = Field(description="When the key was created.")
    created_by: str = Field(description="Who created the key.", examples=["u-17"])
    created_by_name: ShownName
    last_used_at: Instant | None = Field(description="The last use, to the minute; null: never used.")

    @classmethod
    def of(cls, key: ApiKey, names: ActorNames) -> Key:
        """Return the response for a key."""
        return cls.model_validate({**asdict(key), "created_by_name": names.of(key.created_by)})


class IssuedKey(Key):
    """A new API key, with its secret."""

    key: str = Field(
        description="The key, for `X-API-Key`. It is shown only once: the service stores only a digest.",
        examples=["clk_0f3a9c5d7e21_..."],
    )


class Keys(BaseModel):
    """The active API keys of an organisation."""

    api_keys: Sequence[Key] = Field(description=f"The keys, oldest first; at most {API_KEYS_MAX}.")


@router.post(
    "",
    operation_id="issueApiKey",
    summary="Create an API key",
    status_code=201,
    response_description="The key, shown only once.",
    responses=responses(*_PROBLEMS, *_BODY_PROBLEMS, "api-keys-exhausted"),
)
def issue_api_key(
    organisation_id: OrganisationId, body: NewKey, services: ServicesDep, context: ContextDep
) -> IssuedKey:
    """Create an API key for a program of the organisation. It can read what members can read, but not write.

    If a request gets no response, it may have created a key: check the list, and revoke a key that nobody
    has.
    """
    try:
        created, key = services.api_keys.issue(organisation_id, body.name, context)
    except ApiKeysExhausted as error:
        raise HttpProblem("api-keys-exhausted", str(error)) from None
    names = services.people.names([created.created_by])
    return IssuedKey(**Key.of(created, names).model_dump(), key=key)


@router.get(
    "",
    operation_id="listApiKeys",
    summary="API keys",
    response_description="The active keys.",
    responses=responses(*_PROBLEMS),
)
def list_api_keys(organisation_id: OrganisationId, services: ServicesDep) -> Keys:
    """List the active API keys of the organisation, without their secrets."""
    services.ledger.organisation(organisation_id)
    active = services.api_keys.active(organisation_id)
    names = services.people.names([each.created_by for each in active])
    return Keys(api_keys=[Key.of(each, names) for each in active])


@router.delete(
    "/{key_id}",
    operation_id="revokeApiKey",
    summary="Revoke an API key",
    status_code=204,
    response_description="The key is revoked.",
    responses=responses(*_PROBLEMS, "api-key-unknown"),
)
def revoke_api_key(
    organisation_id: OrganisationId, key_id: KeyId, services: ServicesDep, context: ContextDep
) -> None:
    """Revoke an API key. It stops working immediately. The ledger records who revoked it."""
    try:
        services.api_keys.revoke(organisation_id, key_id, context)
    except ApiKeyNotFound as error:
        raise HttpProblem("api-key-unknown", str(error)) from None
