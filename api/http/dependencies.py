"""What handlers are given: the services the API stands on, and a read or a write of this request."""

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
from domain.credits.errors import OrganisationNotFound
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
    """Everything the API needs from outside; the composition root builds it."""

    ledger: Ledger
    read_connection: Callable[[], AbstractContextManager[Connection]]
    """Lends a connection for reads. Raises psycopg.OperationalError or StoreUnavailable."""
    identify: Identify
    """Finds out who asks, from what they present."""
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
    """Of one app: it counts in memory, and in the app's own thread."""
    clock: Callable[[], datetime]
    """The present moment as an aware UTC datetime."""
    new_id: Callable[[], str]
    """A new request id: 1 to 128 printable ASCII characters without a space."""
    allowed_hosts: frozenset[str]
    """`Host` values that are answered: "name:port", or "name" for that name at any port."""
    registry: CollectorRegistry
    """Where the API registers its metrics, and what /metrics shows. One app each."""
    pages: PageServices
    readiness: Callable[[], Mapping[str, str]]
    """Parts of the service by name: "" if fine, or the reason why not. Reasons are shown to callers."""
    rates: RateCard = field(default_factory=RateCard)
    """What a hold or a quote for photos is reckoned with, and what a settlement charges."""
    wait_limit_s: float = 5.0
    """How long a read waits for `min_position`."""


def services_of(request: Request) -> Services:
    """Return the services of the app that serves a request."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]

P = ParamSpec("P")
T = TypeVar("T")


class Positioned(Protocol):
    """An answer that knows the log position it is true at."""

    @property
    def position(self) -> int: ...


PositionedT = TypeVar("PositionedT", bound=Positioned)


class ProjectionLagging(Exception):
    """What was read does not stand at `min_position` yet; `api.http.routes.ReadRoute` asks again."""

    def __init__(self, read_position: int, min_position: int) -> None:
        super().__init__(f"the views stand at {read_position}, not yet at {min_position}; ask again")


class ReadRequest:
    """A read: one lent connection, at `min_position` or later, and an answer that says where it stands."""

    _repeatable_read: ClassVar[bool] = False
    """Whether a view of several statements sees one state; each of the API's own is a single one."""

    def __init__(
        self, http: Request, services: ServicesDep, response: Response, min_position: MinPosition = None
    ) -> None:
        self.services = services
        self._principal: Principal = http.state.principal
        self._response = response
        self._min_position = min_position

    def view(
        self,
        read: Callable[Concatenate[Connection, str, P], PositionedT],
        organisation_id: str,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> PositionedT:
        """Return what a view of an organisation answers to who asks.

        Raises:
            Behind: some views do not stand at `min_position`.
        """
        return self._read(
            lambda connection: read(connection, organisation_id, *args, **kwargs), organisation_id
        )

    def view_all(
        self, read: Callable[Concatenate[Connection, P], PositionedT], *args: P.args, **kwargs: P.kwargs
    ) -> PositionedT:
        """Return what a view of all organisations answers; who is of some sees no rows in it.

        Raises:
            Behind: some views do not stand at `min_position`.
        """
        return self._read(lambda connection: read(connection, *args, **kwargs), None)

    def history(
        self,
        read: Callable[Concatenate[Ledger, str, P], T],
        organisation_id: str,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> tuple[T, int]:
        """Return what the history of an organisation itself answers, and the end of the log it is read to.

        Raises:
            OrganisationNotFound: it is not open, or is none of who asks.
            Behind: the log has not got to `min_position`.
        """
        if not self._principal.may_see(organisation_id):  # no wall of the database's stands here
            raise OrganisationNotFound
        position = self._log_end()
        return read(self.services.ledger, organisation_id, *args, **kwargs), position

    def _read(self, read: Callable[[Connection], PositionedT], organisation_id: str | None) -> PositionedT:
        with self.services.read_connection() as connection, self._row_security(connection, organisation_id):
            if self._min_position is not None:
                self._check(credit_queries.positions(connection).position)
            answer = read(connection)
        self._set_position(answer.position)
        return answer

    def _row_security(
        self, connection: Connection, organisation_id: str | None
    ) -> AbstractContextManager[None]:
        """Keep rows of other organisations out of sight, even of a request that should not have got here."""
        if not self._principal.belongs_to_organisations:
            return repeatable_read(connection) if self._repeatable_read else nullcontext()
        may_know = organisation_id is not None and self._principal.may_see(organisation_id)
        return restrict_to_organisation(
            connection, organisation_id if may_know else None, is_repeatable_read=self._repeatable_read
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
    """Return who asks, when, and by which request: what a decision keeps of it."""
    principal: Principal = http.state.principal
    return command_context.CommandContext(services.clock(), principal.subject, http.state.request_id)


ContextDep = Annotated[command_context.CommandContext, Depends(command_context_of)]


class PageReadRequest(ReadRequest):
    """A read of a page, which shows many numbers at once: all of one state."""

    _repeatable_read: ClassVar[bool] = True


class WriteRequest:
    """A write: who asks, when, because of what, and what makes it count once."""

    def __init__(
        self,
        http: Request,
        response: Response,
        services: ServicesDep,
        context: ContextDep,
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> None:
        self.services = services
        self.ledger = services.ledger
        self.request = context
        self._http = http
        self._response = response
        self._key = idempotency_key

    def idempotency_key(self, organisation_id: str, body: Body, part: str = "") -> IdempotencyKey | None:
        """Return what makes the request count once, if it carries a key; `part` names what it is about.

        Only fields that were sent count, in canonical order: a later version of the API may know more. A
        null says what leaving the field out says.
        """
        if self._key is None:
            return None
        sent = body.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        canonical = json.dumps(sent, sort_keys=True, separators=(",", ":")).encode()
        template = self._http.scope["route"].path_format
        return IdempotencyKey(
            # Ids are printable, so a line break is in none of them.
            scope="\n".join(filter(None, [f"{self._http.method} {template} {organisation_id}", part])),
            key=self._key,
            request_digest=blake2b(canonical, digest_size=32).digest(),
        )

    def set_headers(self, result: RecordedResult[Any]) -> None:
        """Put an answer's position, and whether it is a repeat, in the headers."""
        self.set_position_headers(result.position, repeated=result.repeated)

    def set_position_headers(self, position: int, *, repeated: bool) -> None:
        """Put a position, and whether it is of an earlier answer, in the headers."""
        self._response.headers[POSITION_HEADER] = str(position)
        if repeated:
            self._response.headers[REPLAYED_HEADER] = "true"


Read = Annotated[ReadRequest, Depends()]
Write = Annotated[WriteRequest, Depends()]
