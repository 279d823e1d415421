"""The composition root: every part of the service, wired by explicit calls."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, cast

import msgspec
import psycopg

from consumers.dead_letters import KafkaDeadLetters
from consumers.outlets import BalancesOutlet, EventsOutlet
from consumers.publisher import Publisher
from consumers.runner import UsageConsumer
from consumers.usage import UsageIngest
from domain.invoicing import Invoicing
from domain.ledger import Ledger
from domain.payment_book import Ways
from domain.payments import Payments
from domain.prices import PriceBook
from infra.embedded import issuer as embedded
from infra.event_store.datastore import LedgerDatastore
from infra.event_store.positions import PostgresPositions
from infra.event_store.recorder import LedgerEventStore
from infra.event_store.usage_store import PostgresUsageStore
from infra.identity import Claims, TokenVerifier
from infra.jwks import FixedKeys, PublishedKeys, WrongDocument, fetch_keys
from infra.kafka import Kafka
from infra.papers import PostgresPapers
from infra.payment_desk import PostgresDesk
from infra.seller import seller_of
from infra.settings import Settings, WrongSetting, load_rate_card
from infra.webhooks.deliverer import WebhookDeliverer
from infra.webhooks.endpoints import PostgresWebhookEndpoints
from infra.webhooks.sending import Sender
from infra.wording import EnglishWording

if TYPE_CHECKING:
    from infra.gateways.wiring import Gateway


def utc_now() -> datetime:
    """Return the present moment: the one clock of the service."""
    return datetime.now(UTC)


def new_id() -> str:
    """Return a random request id."""
    return str(uuid.uuid4())


def open_ledger(database_url: str, *, prices: PriceBook | None = None, pool_size: int = 8) -> Ledger:
    """Return the use cases on a database. Close it when done."""
    return Ledger(
        {
            "PERSISTENCE_MODULE": "infra.event_store.recorder:LedgerFactory",
            "DATABASE_URL": database_url,
            "POOL_SIZE": str(pool_size),
        },
        prices,
    )


def gateways(settings: Settings) -> Mapping[str, Gateway]:
    """Return the payment gateways that the settings have keys of, by name. Close each when done.

    Raises:
        WrongSetting: a key is missing, or cannot be used.
    """
    from infra.gateways.wiring import make_gateways  # Razorpay's client takes long to import

    return make_gateways(settings, utc_now)


@contextmanager
def payments_of(settings: Settings, ledger: Ledger) -> Iterator[Payments]:
    """Lend the use cases of payments, with the gateways that the settings have keys of.

    Raises:
        WrongSetting: a key is missing, or cannot be used.
    """
    address = settings.public_address

    def ways(payment_id: str) -> Ways:
        return Ways(
            f"{address}/credits/payments/{payment_id}/return",
            f"{address}/credits/payments/{payment_id}/cancelled",
        )

    reached = gateways(settings)
    try:
        yield Payments(ledger, reached, PostgresDesk(ledger), ways)
    finally:
        for gateway in reached.values():
            gateway.close()


def token_verifier(settings: Settings) -> TokenVerifier:
    """Return what verifies the tokens of the issuer that the settings name.

    Raises:
        WrongSetting: they name none, or its keys are none.
    """
    if settings.oidc_issuer is not None:
        return TokenVerifier(
            PublishedKeys(partial(fetch_keys, settings.oidc_issuer, settings.oidc_jwks_url)),
            issuer=settings.oidc_issuer,
            audience=settings.oidc_audience,
            claims=Claims(
                settings.oidc_subject_claim, settings.oidc_roles_claim, settings.oidc_organisations_claim
            ),
        )
    return TokenVerifier(_embedded_keys(settings), issuer=embedded.ISSUER, audience=embedded.AUDIENCE)


def ticket_verifier(settings: Settings) -> TokenVerifier | None:
    """Return what verifies the tickets of sign-in links; None where the issuer is not the embedded one.

    Raises:
        WrongSetting: there is no issuer, or its keys are none.
    """
    if settings.oidc_issuer is not None:
        return None
    keys = _embedded_keys(settings)
    return TokenVerifier(keys, issuer=embedded.ISSUER, audience=embedded.TICKET_AUDIENCE)


def _embedded_keys(settings: Settings) -> FixedKeys:
    path = settings.embedded_issuer_keys
    if path is None:
        raise WrongSetting(
            "OIDC_ISSUER is not set, so nobody could prove who they are:"
            " only `creditledger up` brings an issuer along"
        )
    try:
        return FixedKeys(msgspec.json.decode(path.read_bytes()))
    except (OSError, ValueError, WrongDocument) as error:
        raise WrongSetting(f"EMBEDDED_ISSUER_KEYS: {path} cannot be used: {error}") from error


def open_invoicing(settings: Settings, ledger: Ledger) -> Invoicing:
    """Return the use cases of invoices, on the connections of a ledger.

    Raises:
        WrongSetting: the seller is not described in full.
    """
    papers = PostgresPapers(cast(LedgerEventStore, ledger.events).recorder.datastore)
    return Invoicing(ledger, papers, seller_of(settings), EnglishWording())


@contextmanager
def usage_consumer(settings: Settings, database_url: str) -> Iterator[UsageConsumer]:
    """Lend the usage consumer, wired to its database and broker."""
    kafka = Kafka(settings)
    store = PostgresUsageStore(database_url)
    datastore = LedgerDatastore(database_url, pool_size=2)
    dead_letters = KafkaDeadLetters(kafka.producer, settings.dead_letter_topic)
    ingest = UsageIngest(store, load_rate_card(settings.rate_card), dead_letters, utc_now)
    try:
        yield UsageConsumer(kafka, PostgresPositions(datastore), ingest, settings.usage_topic)
    finally:
        ingest.close()
        dead_letters.close()
        datastore.close()
        store.close()
        kafka.close()


@contextmanager
def publisher(settings: Settings, database_url: str) -> Iterator[Publisher]:
    """Lend the publisher, wired to its database and broker."""
    kafka = Kafka(settings)
    outlets = (EventsOutlet(settings.events_topic), BalancesOutlet(settings.balances_topic))
    try:
        yield Publisher(database_url, kafka, kafka.wave_producer, outlets)
    finally:
        kafka.close()


@contextmanager
def webhook_deliverer(settings: Settings, database_url: str) -> Iterator[WebhookDeliverer]:
    """Lend the deliverer of webhooks, wired to its database."""
    ledger = open_ledger(database_url, pool_size=2)
    connecting = partial(psycopg.connect, database_url, autocommit=True)
    allow_private = settings.webhook_allow_private
    endpoints = PostgresWebhookEndpoints(connecting, ledger, allow_private=allow_private)
    try:
        yield WebhookDeliverer(
            database_url, endpoints, Sender(allow_private=allow_private), utc_now, random.random
        )
    finally:
        ledger.close()
