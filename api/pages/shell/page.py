"""The dependency of a page's handler: the signed-in person, the organisation, queries and rendering."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, Concatenate, Final, ParamSpec, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from api.http.dependencies import (
    PageReadRequest,
    ResultT,
    ServicesDep,
    command_context_of,
)
from api.http.sessions import Session
from api.pages.shell import rendering
from api.pages.shell.formats import formats_of
from domain.credits.ledger import Ledger
from domain.identity.people import ActorNames
from domain.identity.principals import PrincipalKind, Role
from domain.shared import command_context
from projections.connection import Connection
from projections.credits.read_models import Balance

P = ParamSpec("P")
T = TypeVar("T")

PageReadDep = Annotated[PageReadRequest, Depends()]
_BUYER_ROLE: Final = Role.ADMIN


class Page:
    """A page of an organisation."""

    def __init__(
        self,
        http: Request,
        services: ServicesDep,
        read: PageReadDep,
        organisation: Annotated[str | None, Query()] = None,  # resolved by PageRoute
    ) -> None:
        self.http = http
        self.services = services
        self.session: Session = http.state.session
        self.organisation_id: str = http.state.organisation_id
        self._read = read

    @property
    def is_staff(self) -> bool:
        """Whether the signed-in person is staff, who may grant and refund."""
        return self.session.principal.kind is PrincipalKind.STAFF

    @property
    def may_buy(self) -> bool:
        """Whether the signed-in person may buy: only an admin of the organisation may."""
        return self.session.principal.memberships.get(self.organisation_id) is _BUYER_ROLE

    @property
    def is_member(self) -> bool:
        """Whether the signed-in person belongs to the organisation, in any role."""
        return self.organisation_id in self.session.principal.memberships

    @property
    def command_context(self) -> command_context.CommandContext:
        """The actor, the time and the id of the request."""
        return command_context_of(self.http, self.services)

    def view(
        self,
        read: Callable[Concatenate[Connection, str, P], ResultT],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> ResultT:
        """Return the result of a query on the organisation, within the person's access.

        Raises:
            OrganisationNotFound: it does not exist, or the person does not belong to it.
        """
        return self._read.view(read, self.organisation_id, *args, **kwargs)

    def history(
        self,
        read: Callable[Concatenate[Ledger, str, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> tuple[T, int]:
        """Return the result of a read on the organisation's event history, and the log position at the read.

        Raises:
            OrganisationNotFound: it does not exist, or the person does not belong to it.
        """
        return self._read.history(read, self.organisation_id, *args, **kwargs)

    def names(self, actors: Collection[str | None]) -> ActorNames:
        """Return the display names of actors."""
        return self.services.people.names(actors)

    def url(self, path: str, **query: Any) -> str:
        """Return the URL of a page of the same organisation."""
        parameters = {name: value for name, value in query.items() if value is not None}
        if len(self.session.principal.memberships) != 1:
            parameters = {"organisation": self.organisation_id, **parameters}
        return f"{path}?{urlencode(parameters)}" if parameters else path

    def render(
        self,
        template: str,
        balance: Balance,
        status: int = 200,
        actors: Iterable[str | None] = (),
        **context: Any,
    ) -> Response:
        """Return the page, with the organisation's formats and the names of `actors`."""
        formats = formats_of(balance.currency, balance.time_zone)
        common: Mapping[str, Any] = {
            "page": self,
            "url": self.url,
            "f": formats,
            "balance": balance,
            "names": self.names([self.session.principal.subject, *actors]),
            "organisation_id": self.organisation_id,
            "language": formats.language,
            "may_buy": self.may_buy,
            "is_staff": self.is_staff,
            "is_member": self.is_member,
        }
        return rendering.render(self.http, template, status, **{**common, **context})


PageDep = Annotated[Page, Depends()]
