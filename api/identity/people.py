"""People: names and email addresses for the opaque ids in events, and their erasure."""

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
    """The name and the email address of a person."""

    name: PersonName
    email: Annotated[str, Field(max_length=EMAIL_LENGTH_MAX, pattern=EMAIL_PATTERN)] | None = Field(
        default=None, description="Their email address.", examples=["asha@example.com"]
    )


class Person(BaseModel):
    """A person, as the platform's sign-in reported them."""

    model_config = ConfigDict(from_attributes=True)

    user_id: str = Field(description="The opaque id in events.", examples=["u-17"])
    name: str | None = Field(description="The name; null after erasure.", examples=["Asha Rao"])
    email: str | None = Field(
        description="The email address; null without one, and after erasure.", examples=["asha@example.com"]
    )
    updated_at: Instant = Field(description="When the person was last saved or erased.")
    erased_at: Instant | None = Field(description="When the person was erased; null: not erased.")


@router.put(
    "/{user_id}",
    operation_id="putPerson",
    summary="Save a person",
    response_description="The person.",
    responses=responses(*_PROBLEMS, *_BODY_PROBLEMS, "person-erased"),
)
def put_person(user_id: UserId, body: PersonDetails, services: ServicesDep) -> Person:
    """Save a person's name and email address, replacing the old ones. The platform's sign-in calls this."""
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
    """Return the name and the email address of a person."""
    return Person.model_validate(services.people.get(user_id))


@router.delete(
    "/{user_id}",
    operation_id="erasePerson",
    summary="Erase a person",
    status_code=204,
    response_description="Name and email address are erased.",
    responses=responses(*_PROBLEMS),
)
def erase_person(user_id: UserId, services: ServicesDep) -> None:
    """Erase a person's name and email address.

    This is final. The history stays and shows an erased person.
    """
    services.people.erase(user_id, services.clock())
