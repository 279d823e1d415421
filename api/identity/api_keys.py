"""API keys of an organisation: make one, see those that are live, revoke one."""

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
    """A key to make."""

    name: Name = Field(description="What it is for.", examples=["nightly export"])


class Key(BaseModel):
    """A live key. It reads what its organisation may read."""

    key_id: str = Field(description="Its id, also the visible part of the key.", examples=["0f3a9c5d7e21"])
    name: str = Field(description="What it is for.", examples=["nightly export"])
    created_at: Instant = Field(description="When it was made.")
    created_by: str = Field(description="Who made it.", examples=["u-17"])
    created_by_name: ShownName
    last_used_at: Instant | None = Field(description="When it was used last, to the minute; null: never.")

    @classmethod
    def of(cls, key: ApiKey, names: ActorNames) -> Key:
        """Return a key as it is shown."""
        return cls.model_validate({**asdict(key), "created_by_name": names.of(key.created_by)})


class IssuedKey(Key):
    """A new key, with its secret."""

    key: str = Field(
        description="The key, for `X-API-Key`. It is shown this once: only a digest of it is kept.",
        examples=["clk_0f3a9c5d7e21_..."],
    )


class Keys(BaseModel):
    """The live keys of an organisation."""

    api_keys: Sequence[Key] = Field(description=f"The keys, oldest first; at most {API_KEYS_MAX}.")


@router.post(
    "",
    operation_id="issueApiKey",
    summary="Make an API key",
    status_code=201,
    response_description="The key, shown this once.",
    responses=responses(*_PROBLEMS, *_BODY_PROBLEMS, "api-keys-exhausted"),
)
def issue_api_key(
    organisation_id: OrganisationId, body: NewKey, services: ServicesDep, context: ContextDep
) -> IssuedKey:
    """Make a key for a program of the organisation. It may read what members may, and nothing else.

    A request without an answer may have made a key: look at the list, and revoke what nobody has.
    """
    try:
        made, key = services.api_keys.issue(organisation_id, body.name, context)
    except ApiKeysExhausted as error:
        raise HttpProblem("api-keys-exhausted", str(error)) from None
    names = services.people.names([made.created_by])
    return IssuedKey(**Key.of(made, names).model_dump(), key=key)


@router.get(
    "",
    operation_id="listApiKeys",
    summary="API keys",
    response_description="The live keys.",
    responses=responses(*_PROBLEMS),
)
def list_api_keys(organisation_id: OrganisationId, services: ServicesDep) -> Keys:
    """The live keys of the organisation, without their secrets."""
    services.ledger.organisation(organisation_id)
    active = services.api_keys.active(organisation_id)
    names = services.people.names([each.created_by for each in active])
    return Keys(api_keys=[Key.of(each, names) for each in active])


@router.delete(
    "/{key_id}",
    operation_id="revokeApiKey",
    summary="Revoke an API key",
    status_code=204,
    response_description="The key is refused from now on.",
    responses=responses(*_PROBLEMS, "api-key-unknown"),
)
def revoke_api_key(
    organisation_id: OrganisationId, key_id: KeyId, services: ServicesDep, context: ContextDep
) -> None:
    """End a key at once. Who revoked it is kept."""
    try:
        services.api_keys.revoke(organisation_id, key_id, context)
    except ApiKeyNotFound as error:
        raise HttpProblem("api-key-unknown", str(error)) from None
