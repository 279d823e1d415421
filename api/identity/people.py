"""People: the names behind the opaque ids that events keep, and how to erase them."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from api.http.bodies import Body
from api.http.dependencies import ServicesDep
from api.http.fields import EMAIL_LENGTH_MAX, EMAIL_PATTERN, Instant, PersonName, UserId
from api.http.problems import responses
from api.http.routes import StrictRoute

_PROBLEMS: Final = (
    "cross-site-request",
    "host-not-allowed",
    "invalid-request",
    "internal-error",
    "store-unavailable",
)
_BODY_PROBLEMS: Final = ("malformed-json", "body-too-large", "unsupported-media-type")

router = APIRouter(prefix="/v1/people", route_class=StrictRoute, tags=["People"])


class PersonDetails(Body):
    """What somebody is called."""

    name: PersonName
    email: Annotated[str, Field(max_length=EMAIL_LENGTH_MAX, pattern=EMAIL_PATTERN)] | None = Field(
        default=None, description="Their email address.", examples=["asha@example.com"]
    )


class Person(BaseModel):
    """Somebody, as the platform's sign-in told of them."""

    model_config = ConfigDict(from_attributes=True)

    user_id: str = Field(description="The opaque id that events keep.", examples=["u-17"])
    name: str | None = Field(description="What they are called; null once erased.", examples=["Asha Rao"])
    email: str | None = Field(
        description="Their email address; null without one, and once erased.", examples=["asha@example.com"]
    )
    updated_at: Instant = Field(description="When this was told, or they were erased.")
    erased_at: Instant | None = Field(description="When they were erased; null: they were not.")


@router.put(
    "/{user_id}",
    operation_id="putPerson",
    summary="Tell of a person",
    response_description="The person.",
    responses=responses(*_PROBLEMS, *_BODY_PROBLEMS, "person-erased"),
)
def put_person(user_id: UserId, body: PersonDetails, services: ServicesDep) -> Person:
    """Keep what somebody is called, in place of what was known: for the platform's sign-in."""
    person = services.people.put(user_id, body.name, body.email, services.clock())
    return Person.model_validate(person)


@router.get(
    "/{user_id}",
    operation_id="getPerson",
    summary="A person",
    response_description="The person.",
    responses=responses(*_PROBLEMS, "person-unknown"),
)
def get_person(user_id: UserId, services: ServicesDep) -> Person:
    """What is known of somebody."""
    return Person.model_validate(services.people.get(user_id))


@router.delete(
    "/{user_id}",
    operation_id="erasePerson",
    summary="Erase a person",
    status_code=204,
    response_description="Name and email are gone for good.",
    responses=responses(*_PROBLEMS),
)
def erase_person(user_id: UserId, services: ServicesDep) -> None:
    """Forget somebody's name and email for good. The history stays: it shows an erased person."""
    services.people.erase(user_id, services.clock())
