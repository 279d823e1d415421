"""The API process: its services, its readiness check, and its HTTP server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import psycopg
import uvicorn
from prometheus_client import CollectorRegistry
from psycopg_pool import ConnectionPool

from api.app import create_app
from api.http.dependencies import Services
from api.http.page_services import PageServices
from api.http.rate_limits import rate_limits
from domain.invoicing.documents import InvoiceDocument
from infra.clock import new_id, utc_now
from infra.identity.api_keys import PostgresApiKeys
from infra.identity.people import PostgresPeople
from infra.identity.sessions import PostgresSessions
from infra.identity.tokens import Authenticator, TokenVerifier
from infra.kafka.dead_letters import latest_dead_letters
from infra.payments.reconciliation import make_reconciliation
from infra.service.composition import credits_of, open_invoicing, open_ledger, open_payments, ticket_verifier
from infra.settings import Settings, load_price_book, load_rate_card
from infra.struct_types import prepare_struct_types
from infra.webhooks.endpoints import PostgresWebhookEndpoints

READ_CONNECTIONS: Final = 16
CONNECT_TIMEOUT_S: Final = 5.0


def serve(settings: Settings, database_url: str, verifier: TokenVerifier, stop: threading.Event) -> None:
    """Serve the API until `stop` is set.

    Raises:
        SystemExit: the address is in use.
    """
    with api_services(settings, database_url, verifier) as services:
        config = uvicorn.Config(
            create_app(services),
            host=settings.api_host,
            port=settings.api_port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=10,
        )
        server = _Server(config)
        prepare_struct_types()
        threading.Thread(target=_stop_server, args=(server, stop), daemon=True).start()
        server.run()
        if not server.started:
            raise SystemExit(f"cannot listen on {settings.api_host}:{settings.api_port}")


@contextmanager
def api_services(settings: Settings, database_url: str, verifier: TokenVerifier) -> Iterator[Services]:
    """Context manager that yields the services of the API."""
    pool: ConnectionPool[psycopg.Connection[tuple[Any, ...]]] = ConnectionPool(
        database_url,
        min_size=1,
        max_size=READ_CONNECTIONS,
        kwargs={"autocommit": True},
        check=ConnectionPool.check_connection,
        timeout=CONNECT_TIMEOUT_S,
        open=True,
    )
    ledger = open_ledger(database_url, prices=load_price_book(settings.price_book))
    credit = credits_of(ledger)
    keys = PostgresApiKeys(pool.connection, utc_now, credit.commands)
    tickets = ticket_verifier(settings)
    pages = PageServices(
        sessions=PostgresSessions(pool.connection, utc_now),
        verify_ticket=tickets.ticket if tickets else None,
        secure_cookies=tickets is None,
        sign_in_origins=settings.sign_in_sites,
        support_contact=settings.support_contact,
        dead_letters=partial(latest_dead_letters, settings),
        gateways=settings.gateway_names,
        reconcile=make_reconciliation(settings, ledger, pool.connection),
    )

    def readiness() -> Mapping[str, str]:
        try:
            with pool.connection() as connection:
                connection.execute("SELECT 1 FROM projections.positions LIMIT 1")
        except psycopg.Error as error:
            return {"database": f"does not answer: {type(error).__name__}"}
        return {"database": ""}

    try:
        with open_payments(settings, ledger) as payment_services:
            yield Services(
                payments=payment_services.payments,
                payment_tracking=payment_services.tracking,
                refunds=payment_services.refunds,
                top_ups=payment_services.top_ups,
                ledger=ledger,
                commands=credit.commands,
                holds=credit.holds,
                read_connection=pool.connection,
                identify=Authenticator(verifier, keys),
                api_keys=keys,
                webhooks=PostgresWebhookEndpoints(
                    pool.connection, credit.commands, allow_private=settings.webhook_allow_private
                ),
                people=PostgresPeople(pool.connection),
                invoicing=open_invoicing(settings, credit.commands),
                print_invoice=_print_invoice,
                limits=rate_limits(
                    settings.api_requests_per_minute, settings.api_organisation_requests_per_minute
                ),
                clock=utc_now,
                new_id=new_id,
                allowed_hosts=settings.allowed_hosts,
                registry=CollectorRegistry(),
                pages=pages,
                readiness=readiness,
                rates=load_rate_card(settings.rate_card),
            )
    finally:
        ledger.close()
        pool.close()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do not handle signals here: `stop_on_signals` handles them for the whole process."""
        yield


def _stop_server(server: uvicorn.Server, stop: threading.Event) -> None:
    stop.wait()
    server.should_exit = True


def _print_invoice(document: InvoiceDocument) -> bytes:
    # Imported here: fonts and images take a quarter of the start-up time.
    from infra.invoicing.pdf import render_pdf

    return render_pdf(document)
