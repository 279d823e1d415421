"""The composition root: builds every part of the service with explicit calls."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import msgspec
import psycopg
from eventsourcing.utils import Environment

from consumers.publishing.feeds import BalanceFeed, EventFeed
from consumers.publishing.publisher import Publisher
from consumers.usage.consumer import UsageConsumer
from consumers.usage.dead_letters import KafkaDeadLetters
from consumers.usage.ingest import UsageIngest
from domain.credits.commands import CreditCommands
from domain.credits.hold_commands import HoldCommands
from domain.credits.ledger import Ledger
from domain.invoicing.service import Invoicing
from domain.payments.auto_top_up_purchases import AutoTopUpPurchases
from domain.payments.checkout import PaymentOrders
from domain.payments.gateway import PaymentGateway
from domain.payments.ports import ReturnUrls
from domain.payments.refunds import PaymentRefunds
from domain.payments.repository import PaymentRepository
from domain.payments.service import Payments
from domain.payments.tracking import PaymentTracking
from domain.pricing.price_book import PriceBook
from infra.clock import utc_now
from infra.credits.charge_history import PostgresChargeHistory
from infra.event_store.datastore import LedgerDatastore
from infra.event_store.kafka_positions import PostgresKafkaPositions
from infra.event_store.library_settings import UnsupportedSetting, check_settings
from infra.event_store.recorder import event_store_of
from infra.event_store.usage_store import PostgresUsageStore
from infra.identity import embedded_issuer
from infra.identity.signing_keys import InvalidKeySet, RemoteKeys, StaticKeys, fetch_keys
from infra.identity.tokens import ClaimNames, TokenVerifier
from infra.invoicing.document_store import PostgresBillingDocumentStore
from infra.invoicing.seller import seller_of
from infra.invoicing.wording import EnglishInvoiceText
from infra.kafka.connections import Kafka
from infra.payments.gateways.wiring import open_gateways
from infra.payments.payment_records import PostgresQuoteStore
from infra.settings import InvalidSetting, Settings, load_rate_card
from infra.webhooks.deliverer import WebhookDeliverer
from infra.webhooks.endpoints import PostgresWebhookEndpoints
from infra.webhooks.http_sender import HttpSender


def open_ledger(database_url: str, *, prices: PriceBook | None = None, pool_size: int = 8) -> Ledger:
    """Return the ledger of a database. The caller closes it.

    Raises:
        InvalidSetting: the environment sets a variable of the eventsourcing library that the ledger refuses.
    """
    _check_library_settings()
    return Ledger(
        {
            "PERSISTENCE_MODULE": "infra.event_store.recorder:LedgerFactory",
            "DATABASE_URL": database_url,
            "POOL_SIZE": str(pool_size),
        },
        prices,
    )


def _check_library_settings() -> None:
    try:
        check_settings(Environment("ledger", os.environ))
    except UnsupportedSetting as error:
        raise InvalidSetting(str(error)) from error


@dataclass(frozen=True)
class CreditServices:
    """The commands on credits, all on one ledger."""

    commands: CreditCommands
    holds: HoldCommands


def credits_of(ledger: Ledger) -> CreditServices:
    """Return the commands on credits."""
    charge_history = PostgresChargeHistory(ledger)
    return CreditServices(CreditCommands(ledger, charge_history), HoldCommands(ledger, charge_history))


@dataclass(frozen=True)
class PaymentServices:
    """The commands on payments. They share one repository."""

    payments: Payments
    tracking: PaymentTracking
    refunds: PaymentRefunds
    top_ups: AutoTopUpPurchases


def payments_of(
    ledger: Ledger, gateways: Mapping[str, PaymentGateway], return_urls: Callable[[str], ReturnUrls]
) -> PaymentServices:
    """Build the payment services for the given gateways. `return_urls` maps a payment id to its URLs."""
    quote_store = PostgresQuoteStore(ledger)
    repository = PaymentRepository(ledger, gateways, PostgresChargeHistory(ledger))
    orders = PaymentOrders(repository, quote_store, return_urls)
    refunds = PaymentRefunds(repository, quote_store)
    top_ups = AutoTopUpPurchases(repository)
    return PaymentServices(
        Payments(repository, orders, quote_store),
        PaymentTracking(repository, orders, refunds, top_ups),
        refunds,
        top_ups,
    )


@contextmanager
def open_payments(settings: Settings, ledger: Ledger) -> Iterator[PaymentServices]:
    """Context manager that yields the commands on payments, with the configured gateways.

    Raises:
        InvalidSetting: a gateway's key is missing or invalid.
    """
    address = settings.public_address

    def return_urls(payment_id: str) -> ReturnUrls:
        return ReturnUrls(
            f"{address}/credits/payments/{payment_id}/return",
            f"{address}/credits/payments/{payment_id}/cancelled",
        )

    gateways = open_gateways(settings)
    try:
        yield payments_of(ledger, gateways, return_urls)
    finally:
        for gateway in gateways.values():
            gateway.close()


def token_verifier(settings: Settings) -> TokenVerifier:
    """Return the verifier of bearer tokens, for the configured or the embedded issuer.

    Raises:
        InvalidSetting: no issuer is configured, or its keys are invalid.
    """
    if settings.oidc_issuer is not None:
        return TokenVerifier(
            RemoteKeys(partial(fetch_keys, settings.oidc_issuer, settings.oidc_jwks_url)),
            issuer=settings.oidc_issuer,
            audience=settings.oidc_audience,
            claims=ClaimNames(
                settings.oidc_subject_claim, settings.oidc_roles_claim, settings.oidc_organisations_claim
            ),
        )
    return TokenVerifier(
        _embedded_keys(settings), issuer=embedded_issuer.ISSUER, audience=embedded_issuer.AUDIENCE
    )


def ticket_verifier(settings: Settings) -> TokenVerifier | None:
    """Return the verifier of the tickets in sign-in links; None if the issuer is not the embedded one.

    Raises:
        InvalidSetting: no issuer is configured, or its keys are invalid.
    """
    if settings.oidc_issuer is not None:
        return None
    keys = _embedded_keys(settings)
    return TokenVerifier(keys, issuer=embedded_issuer.ISSUER, audience=embedded_issuer.TICKET_AUDIENCE)


def _embedded_keys(settings: Settings) -> StaticKeys:
    path = settings.embedded_issuer_keys
    if path is None:
        raise InvalidSetting(
            "OIDC_ISSUER is not set, so callers cannot be authenticated:"
            " only `creditledger up` has an embedded issuer"
        )
    try:
        return StaticKeys(msgspec.json.decode(path.read_bytes()))
    except (OSError, ValueError, InvalidKeySet) as error:
        raise InvalidSetting(f"EMBEDDED_ISSUER_KEYS: {path} cannot be used: {error}") from error


def open_invoicing(settings: Settings, commands: CreditCommands) -> Invoicing:
    """Return the invoicing service, on the connections of the ledger.

    Raises:
        InvalidSetting: a setting of the seller is missing or invalid.
    """
    documents = PostgresBillingDocumentStore(event_store_of(commands.ledger).recorder.datastore)
    return Invoicing(commands, documents, seller_of(settings), EnglishInvoiceText())


@contextmanager
def usage_consumer(settings: Settings, database_url: str) -> Iterator[UsageConsumer]:
    """Context manager that yields the usage consumer.

    Raises:
        InvalidSetting: the environment sets a variable of the eventsourcing library that the ledger refuses.
    """
    _check_library_settings()
    kafka = Kafka(settings)
    store = PostgresUsageStore(database_url)
    datastore = LedgerDatastore(database_url, pool_size=2)
    dead_letters = KafkaDeadLetters(kafka.producer, settings.dead_letter_topic)
    ingest = UsageIngest(store, load_rate_card(settings.rate_card), dead_letters, utc_now)
    try:
        yield UsageConsumer(kafka, PostgresKafkaPositions(datastore), ingest, settings.usage_topic)
    finally:
        ingest.close()
        dead_letters.close()
        datastore.close()
        store.close()
        kafka.close()


@contextmanager
def publisher(settings: Settings, database_url: str) -> Iterator[Publisher]:
    """Context manager that yields the publisher."""
    kafka = Kafka(settings)
    feeds = (EventFeed(settings.events_topic), BalanceFeed(settings.balances_topic))
    try:
        yield Publisher(database_url, kafka, kafka.wave_producer, feeds)
    finally:
        kafka.close()


@contextmanager
def webhook_deliverer(settings: Settings, database_url: str) -> Iterator[WebhookDeliverer]:
    """Context manager that yields the webhook deliverer."""
    ledger = open_ledger(database_url, pool_size=2)
    connect = partial(psycopg.connect, database_url, autocommit=True)
    allow_private = settings.webhook_allow_private
    endpoints = PostgresWebhookEndpoints(connect, credits_of(ledger).commands, allow_private=allow_private)
    try:
        yield WebhookDeliverer(
            database_url, endpoints, HttpSender(allow_private=allow_private), utc_now, random.random
        )
    finally:
        ledger.close()
