"""Dependencies of the handlers: the services of the app, and the read or write of a request."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Concatenate, ParamSpec, Protocol, TypeVar

from fastapi import Depends
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response

from api.http.bodies import Body
from api.http.fields import IdempotencyKeyHeader, MinPosition
from api.http.page_services import PageServices
from api.http.rate_limits import RateLimits
from domain.credits.commands import CreditCommands
from domain.credits.errors import OrganisationNotFound
from domain.credits.hold_commands import HoldCommands
from domain.credits.ledger import Ledger
from domain.identity.people import People
from domain.identity.principals import ApiKeys, Identify, Principal
from domain.invoicing.documents import InvoiceDocument
from domain.invoicing.service import Invoicing
from domain.payments.auto_top_up_purchases import AutoTopUpPurchases
from domain.payments.refunds import PaymentRefunds
from domain.payments.service import Payments
from domain.payments.tracking import PaymentTracking
from domain.pricing.rate_card import RateCard
from domain.shared import command_context
from domain.shared.command_runner import RecordedResult
from domain.shared.event_store import IdempotencyKey
from domain.webhooks.endpoints import WebhookEndpoints
from projections.connection import Connection
from projections.credits import queries as credit_queries
from projections.query.row_security import repeatable_read, restrict_to_organisation

POSITION_HEADER = "Ledger-Position"
REPLAYED_HEADER = "Idempotent-Replayed"


@dataclass(frozen=True)
class Services:
    """Everything that the API needs from outside. The composition root builds it."""

    ledger: Ledger
    commands: CreditCommands
    holds: HoldCommands
    read_connection: Callable[[], AbstractContextManager[Connection]]
    """Borrows a connection for reads from the pool. Raises psycopg.OperationalError or StoreUnavailable."""
    identify: Identify
    """Returns the principal of some credentials."""
    api_keys: ApiKeys
    webhooks: WebhookEndpoints
    people: People
    invoicing: Invoicing
    print_invoice: Callable[[InvoiceDocument], bytes]
    """Returns the PDF of an invoice or a credit note."""
    payments: Payments
    payment_tracking: PaymentTracking
    refunds: PaymentRefunds
    top_ups: AutoTopUpPurchases
    limits: RateLimits
    """Limits of one app. They count in memory, on the thread of the app's event loop."""
    clock: Callable[[], datetime]
    """The current time as an aware UTC datetime."""
    new_id: Callable[[], str]
    """Returns a new request id: 1 to 128 printable ASCII characters without spaces."""
    allowed_hosts: frozenset[str]
    """Accepted `Host` values: "name:port", or "name" for any port."""
    registry: CollectorRegistry
    """The API registers its metrics here, and /metrics shows them. Each app needs its own registry."""
    pages: PageServices
    readiness: Callable[[], Mapping[str, str]]
    """Parts of the service by name: "" if ready, or the reason why not. Callers see the reasons."""
    rates: RateCard = field(default_factory=RateCard)
    """The rates of holds and quotes for photos, and of settlements."""
    wait_limit_s: float = 5.0
    """How long a read waits for `min_position`."""


def services_of(request: Request) -> Services:
    """Return the services of the app that handles a request."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]

P = ParamSpec("P")
T = TypeVar("T")


class HasPosition(Protocol):
    """A query result with its log position."""

    @property
    def position(self) -> int: ...


ResultT = TypeVar("ResultT", bound=HasPosition)


class ProjectionLagging(Exception):
    """A projection has not reached `min_position` yet; `api.http.routes.ReadRoute` retries."""

    def __init__(self, read_position: int, min_position: int) -> None:
        super().__init__(f"the projections are at position {read_position}, not yet at {min_position}; retry")


class ReadRequest:
    """A read on one borrowed connection, at `min_position` or later.

    Sets the position header of the response.
    """

    _repeatable_read: ClassVar[bool] = False
    """Whether the statements of a query share one snapshot. Each query of the API is a single statement."""

    def __init__(
        self, http: Request, services: ServicesDep, response: Response, min_position: MinPosition = None
    ) -> None:
        self.services = services
        self._principal: Principal = http.state.principal
        self._response = response
        self._min_position = min_position

    def view(
        self,
        read: Callable[Concatenate[Connection, str, P], ResultT],
        organisation_id: str,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> ResultT:
        """Return the result of a query on an organisation, within the caller's access.

        Raises:
            ProjectionLagging: a projection has not reached `min_position`.
        """
        return self._read(
            lambda connection: read(connection, organisation_id, *args, **kwargs), organisation_id
        )

    def view_all(
        self, read: Callable[Concatenate[Connection, P], ResultT], *args: P.args, **kwargs: P.kwargs
    ) -> ResultT:
        """Return the result of a query on all organisations. A member of an organisation gets no rows.

        Raises:
            ProjectionLagging: a projection has not reached `min_position`.
        """
        return self._read(lambda connection: read(connection, *args, **kwargs), None)

    def history(
        self,
        read: Callable[Concatenate[Ledger, str, P], T],
        organisation_id: str,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> tuple[T, int]:
        """Return the result of a read on an organisation's event history, and the log position at the read.

        Raises:
            OrganisationNotFound: it is not open, or the caller does not belong to it.
            ProjectionLagging: the log has not reached `min_position`.
        """
        if not self._principal.may_see(organisation_id):  # row security does not cover the event log
            raise OrganisationNotFound
        position = self._log_end()
        return read(self.services.ledger, organisation_id, *args, **kwargs), position

    def _read(self, read: Callable[[Connection], ResultT], organisation_id: str | None) -> ResultT:
        with self.services.read_connection() as connection, self._row_security(connection, organisation_id):
            if self._min_position is not None:
                self._check(credit_queries.positions(connection).position)
            result = read(connection)
        self._set_position(result.position)
        return result

    def _row_security(
        self, connection: Connection, organisation_id: str | None
    ) -> AbstractContextManager[None]:
        """Hide rows of other organisations, even if a request passed the permission check by mistake."""
        if not self._principal.belongs_to_organisations:
            return repeatable_read(connection) if self._repeatable_read else nullcontext()
        may_see = organisation_id is not None and self._principal.may_see(organisation_id)
        return restrict_to_organisation(
            connection, organisation_id if may_see else None, is_repeatable_read=self._repeatable_read
        )

    def _log_end(self) -> int:
        with self.services.read_connection() as connection:
            position = credit_queries.positions(connection).log_end
        self._check(position)
        self._set_position(position)
        return position

    def _check(self, read_position: int) -> None:
        if self._min_position is not None and read_position < self._min_position:
            raise ProjectionLagging(read_position, self._min_position)

    def _set_position(self, position: int) -> None:
        self._response.headers[POSITION_HEADER] = str(position)


def command_context_of(http: Request, services: ServicesDep) -> command_context.CommandContext:
    """Return the actor, the time and the request id of a request: events keep them."""
    principal: Principal = http.state.principal
    return command_context.CommandContext(services.clock(), principal.subject, http.state.request_id)


ContextDep = Annotated[command_context.CommandContext, Depends(command_context_of)]


class PageReadRequest(ReadRequest):
    """A read of a page. All its queries use one repeatable-read snapshot."""

    _repeatable_read: ClassVar[bool] = True


class WriteRequest:
    """A write: its actor, time, request id and idempotency key."""

    def __init__(
        self,
        http: Request,
        response: Response,
        services: ServicesDep,
        context: ContextDep,
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> None:
        self.services = services
        self.request = context
        self._http = http
        self._response = response
        self._key = idempotency_key

    def idempotency_key(self, organisation_id: str, body: Body, part: str = "") -> IdempotencyKey | None:
        """Return the idempotency key of the request, or None. `part` is the target within the organisation.

        The digest covers only the fields that were sent, in canonical order: a later version of the API may
        have more fields. A null means the same as an absent field.
        """
        if self._key is None:
            return None
        sent = body.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        canonical = json.dumps(sent, sort_keys=True, separators=(",", ":")).encode()
        template = self._http.scope["route"].path_format
        return IdempotencyKey(
            # Ids are printable, so none contains a line break.
            scope="\n".join(filter(None, [f"{self._http.method} {template} {organisation_id}", part])),
            key=self._key,
            request_digest=blake2b(canonical, digest_size=32).digest(),
        )

    def set_headers(self, result: RecordedResult[Any]) -> None:
        """Set the position header, and the replay header if the result repeats an earlier one."""
        self.set_position_headers(result.position, repeated=result.repeated)

    def set_position_headers(self, position: int, *, repeated: bool) -> None:
        """Set the position header, and the replay header if `repeated`."""
        self._response.headers[POSITION_HEADER] = str(position)
        if repeated:
            self._response.headers[REPLAYED_HEADER] = "true"


Read = Annotated[ReadRequest, Depends()]
Write = Annotated[WriteRequest, Depends()]
