"""A ledger behind its API, on a real database, for the tests of the API."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from eventsourcing.utils import Environment
from prometheus_client import CollectorRegistry
from psycopg_pool import ConnectionPool

from api.app import create_app
from api.http.dependencies import Services
from api.http.page_services import PageServices
from api.http.rate_limits import rate_limits
from domain.credits.ledger import Ledger
from domain.payments.ports import ReturnUrls
from domain.pricing.rate_card import RateCard, UsageType
from infra.embedded.issuer import EmbeddedIssuer
from infra.identity.api_keys import PostgresApiKeys
from infra.identity.embedded_issuer import AUDIENCE, ISSUER, TICKET_AUDIENCE
from infra.identity.people import PostgresPeople
from infra.identity.sessions import PostgresSessions
from infra.identity.signing_keys import StaticKeys
from infra.identity.tokens import Authenticator, TokenVerifier
from infra.invoicing.pdf import render_pdf
from infra.service.composition import credits_of, open_invoicing, payments_of
from infra.settings import Settings
from infra.webhooks.endpoints import PostgresWebhookEndpoints
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS
from tests.histories import append
from tests.payment_gateway import InMemoryGateway
from tests.usage_reports import usage_report

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette warns about httpx, but works with it
    from starlette.testclient import TestClient

HOST = "127.0.0.1:8000"
STAFF = "staff-3"

Json = dict[str, Any]


@dataclass
class LedgerApi:
    """The services of an app, and methods that change the ledger without the API."""

    conninfo: str
    services: Services
    issuer: EmbeddedIssuer

    def client(self, headers: Mapping[str, str] | None = None, **changes: Any) -> TestClient:
        """Return a client of a new app, whose services have `changes`.

        It sends the credentials of staff unless it gets other headers.
        """
        services = replace(self.services, registry=CollectorRegistry(), **changes)
        client = TestClient(create_app(services), base_url=f"http://{HOST}", raise_server_exceptions=False)
        client.headers.update(self.staff if headers is None else headers)
        return client

    @property
    def staff(self) -> dict[str, str]:
        """The Authorization header of a member of staff."""
        return self.bearer(STAFF, roles=["staff"])

    def bearer(self, subject: str, **claims: Any) -> dict[str, str]:
        """Return the Authorization header of a user with these roles and organisations."""
        return {"Authorization": f"Bearer {self.issuer.token(subject, **claims)}"}

    def catch_up(self) -> None:
        """Advance the projections to the end of the log."""
        ProjectionRunner(self.conninfo, ALL_PROJECTIONS).catch_up()

    def charge(
        self,
        organisation_id: str,
        run_id: str,
        photos: int,
        occurred_at: datetime | None = None,
        user: str | None = "u-17",
    ) -> int:
        """Charge photos as the usage consumer would, and return the charge's version."""
        now = datetime.now(UTC)
        usage_type = UsageType.PHOTO_PROCESSING
        report = usage_report(
            source="/test",
            organisation_id=organisation_id,
            message_id=f"message-{next(_numbers)}",
            run_id=run_id,
            usage_type=usage_type,
            photos=photos,
            ai_search=True,
            event_id=1042,
            event_name="City Marathon 2026",
            user=user,
            hold_id=None,
            occurred_at=occurred_at or now,
        )
        organisation = self.services.ledger.organisation(organisation_id)
        rate = RateCard().rate_millionths(usage_type, ai_search=True, at=report.occurred_at)
        organisation.charge(report, rate, now)
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            append(connection, organisation.collect_events())
        return organisation.version


_numbers = itertools.count(1)


@contextmanager
def ledger_api(conninfo: str) -> Iterator[LedgerApi]:
    """Yield a ledger and its services on a migrated database."""
    environment = Environment(
        "ledger",
        {"PERSISTENCE_MODULE": "infra.event_store.recorder:LedgerFactory", "DATABASE_URL": conninfo},
    )
    ledger = Ledger(environment)
    with (
        ConnectionPool(conninfo, min_size=1, max_size=4, kwargs={"autocommit": True}, open=False) as pool,
        TemporaryDirectory() as folder,
    ):
        try:
            issuer = EmbeddedIssuer(Path(folder))
            issuer.start()
            yield LedgerApi(conninfo, _services(ledger, pool, issuer), issuer)
        finally:
            ledger.close()


def _services(ledger: Ledger, pool: ConnectionPool[Any], issuer: EmbeddedIssuer) -> Services:
    tokens = TokenVerifier(StaticKeys(issuer.jwks()), issuer=ISSUER, audience=AUDIENCE)
    credit = credits_of(ledger)
    keys = PostgresApiKeys(pool.connection, lambda: datetime.now(UTC), credit.commands)
    payment_services = payments_of(
        ledger,
        {"razorpay": InMemoryGateway()},
        lambda payment_id: ReturnUrls(f"http://{HOST}/{payment_id}", f"http://{HOST}/"),
    )
    return Services(
        ledger=ledger,
        commands=credit.commands,
        holds=credit.holds,
        read_connection=lambda: pool.connection(timeout=5),
        identify=Authenticator(tokens, keys),
        api_keys=keys,
        webhooks=PostgresWebhookEndpoints(pool.connection, credit.commands, allow_private=False),
        people=PostgresPeople(pool.connection),
        invoicing=open_invoicing(Settings(), credit.commands),
        print_invoice=render_pdf,
        payments=payment_services.payments,
        payment_tracking=payment_services.tracking,
        refunds=payment_services.refunds,
        top_ups=payment_services.top_ups,
        limits=rate_limits(1_000_000, 1_000_000),
        clock=lambda: datetime.now(UTC),
        new_id=lambda: f"request-{next(_numbers)}",
        allowed_hosts=frozenset({HOST, "localhost"}),
        registry=CollectorRegistry(),
        pages=PageServices(
            sessions=PostgresSessions(pool.connection, lambda: datetime.now(UTC)),
            verify_ticket=TokenVerifier(
                StaticKeys(issuer.jwks()), issuer=ISSUER, audience=TICKET_AUDIENCE
            ).ticket,
            secure_cookies=False,
            support_contact="credits@example.com",
        ),
        readiness=lambda: {"database": "", "projections": ""},
        wait_limit_s=0.3,
    )


def problem_of(response: Any) -> str:
    """Return the name of a response's problem, and check the problem document."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document: Mapping[str, Any] = response.json()
    assert document["status"] == response.status_code
    assert {"type", "title", "status", "detail", "instance", "request_id"} <= document.keys()
    assert response.headers["x-request-id"] == document["request_id"]
    return str(document["type"]).removeprefix("/problems/")


def invalid_fields(response: Any) -> list[str]:
    """Return the names of the invalid fields in a response."""
    return [each["field"] for each in response.json().get("errors", [])]
