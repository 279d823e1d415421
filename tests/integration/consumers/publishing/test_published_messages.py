"""Checks the messages of all four topics against `docs/asyncapi.yaml`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import cast

import msgspec
import pytest

from consumers.publishing.public_events import PUBLIC_MAPPINGS
from domain.credits.audit_events import AuditEvent
from domain.credits.auto_top_up import LastTopUpStatus, TopUpTerms
from domain.credits.auto_top_up_events import OffReason
from domain.credits.events import PurchaseRefunded
from domain.credits.organisation import Organisation
from domain.event_catalogue import INVOICE_EVENT_TYPES, PAYMENT_EVENT_TYPES
from domain.pricing.plans import Plan
from domain.pricing.rate_card import RateCard
from domain.shared.aggregate import EventEnvelope
from domain.shared.command_context import CommandContext
from domain.shared.money import Cost
from domain.shared.stream_keys import payment_stream, series_stream
from infra.service.composition import credits_of
from tests.auditor.topic import read_topic
from tests.contract.asyncapi import DOCUMENT, accept, check_message, resolve
from tests.histories import append
from tests.integration.consumers.ingest_environment import IngestEnvironment
from tests.integration.consumers.publishing.published_feeds import (
    PublishedFeeds,
    PublisherThread,
    publishing_settings,
)
from tests.integration.consumers.service import Service, publish, wait_until
from tests.unit.shared.events import EVENTS, HOLD_REQUEST
from tests.unit.usage.records import KafkaRecord, usage_record

ORGANISATION = "org-1"


def live(ingest_env: IngestEnvironment) -> None:
    """Record all events of an organisation that are not caused by usage messages."""
    ledger = ingest_env.ledger

    def hold(run_id: str) -> str:
        wanted = msgspec.structs.replace(HOLD_REQUEST, run_id=run_id, credits=50, photos=50)
        placed = (
            credits_of(ledger).holds.place_hold(ORGANISATION, wanted, context=ingest_env.request()).value.hold
        )
        assert placed is not None
        return placed.hold_id

    ingest_env.open(ORGANISATION, trial_credits=100)
    bought = credits_of(ledger).commands.record_purchase(
        ORGANISATION,
        1_000,
        payment_id="pay-1",
        order_id="order-1",
        gateway="razorpay",
        context=ingest_env.request(),
    )
    administer(ingest_env, bought.value.version)
    credits_of(ledger).commands.change_price(ORGANISATION, 15_000, context=ingest_env.request())
    credits_of(ledger).commands.change_plan(
        ORGANISATION, Plan.PRO, expires_at=ingest_env.now + timedelta(365), context=ingest_env.request()
    )
    credits_of(ledger).commands.change_time_zone(ORGANISATION, "Asia/Kolkata", context=ingest_env.request())
    credits_of(ledger).commands.set_low_balance_threshold(ORGANISATION, 200, context=ingest_env.request())
    credits_of(ledger).holds.settle_hold(
        ORGANISATION, hold("run-1"), 30, rates=RateCard(), context=ingest_env.request()
    )
    credits_of(ledger).holds.release_hold(ORGANISATION, hold("run-2"), context=ingest_env.request())
    hold("run-3")  # expires when the first usage is charged
    charges = [
        version
        for (version,) in ingest_env.connection.execute(
            "SELECT originator_version FROM ledger.events WHERE topic = 'usage_charged.v1'"
        )
    ]
    credits_of(ledger).commands.refund_charge(
        ORGANISATION, charges[0], 5, reason="blurred", context=ingest_env.request()
    )


def administer(ingest_env: IngestEnvironment, purchase: int) -> None:
    """Record events around credits: refunds of money, keys, billing details, payments, invoices."""
    organisation = ingest_env.ledger.organisation(ORGANISATION)
    refunded = organisation.refund_purchase(
        purchase,
        10,
        payment_id="payment-1",
        refund_id="refund-1",
        cost=Cost(20, 0),
        context=ingest_env.request(),
    )
    organisation.reverse_purchase_refund(cast("PurchaseRefunded", refunded.event), ingest_env.request())
    for event in EVENTS.values():
        if isinstance(event, AuditEvent):
            organisation.record_audit_event(msgspec.structs.replace(event, recorded_at=ingest_env.now))
    top_up(organisation, ingest_env.request())
    append(ingest_env.connection, organisation.collect_events())
    for stream, topics in (
        (payment_stream("payment-1"), PAYMENT_EVENT_TYPES),
        (series_stream("CL"), INVOICE_EVENT_TYPES),
    ):
        append(
            ingest_env.connection,
            [EventEnvelope(stream, number, EVENTS[topic]) for number, topic in enumerate(topics, 1)],
        )


def top_up(organisation: Organisation, context: CommandContext) -> None:
    """Switch auto top-up on, change it, start a top-up, pause, and switch it off."""
    terms = TopUpTerms(1_000, 1_000_000)
    organisation.switch_on_auto_top_up(terms, payment_id="payment-1", amount_minor_max=2_000, context=context)
    organisation.change_auto_top_up(terms, 2_000, context)
    organisation.start_top_up("top-1", 2_000, LastTopUpStatus.NONE, context)
    organisation.start_top_up("top-2", 2_000, LastTopUpStatus.PAID, context)
    organisation.switch_off_auto_top_up(OffReason.ASKED, context)


def charged(service: Service, count: int) -> bool:
    return service.consumer.ingest.counts.charges == count


@pytest.mark.slow
def test_every_sent_message_is_described(
    ingest_env: IngestEnvironment, broker: str, topic_name: Callable[[str], str]
) -> None:
    settings = publishing_settings(broker, topic_name).model_copy(
        update={"kafka_group_id": topic_name("group")}
    )
    feeds = PublishedFeeds(settings, ingest_env.connection, ingest_env.service)
    live(ingest_env)
    with Service(settings, ingest_env.service) as service, PublisherThread(settings, ingest_env.service):
        wait_until(lambda: service.owned)
        for number, photos in enumerate([950, 500], start=1):  # low balance, then exhausted
            publish(settings, [usage_record(f"m-{number}", ORGANISATION, photos)])
            wait_until(partial(charged, service, number))
        publish(settings, [KafkaRecord(b"org-1", b"not JSON")])
        wait_until(lambda: service.consumer.ingest.counts.dead_letters == 1)
        ingest_env.grant(ORGANISATION, 5_000)
        feeds.project()
        wait_until(feeds.published)

    servers = str(settings.kafka_bootstrap_servers)
    for record in read_topic(servers, settings.usage_topic):
        if record.value != b"not JSON":
            check_message("usage", json.loads(record.value or b""))
    (letter,) = read_topic(servers, settings.dead_letter_topic)
    headers = resolve(DOCUMENT["components"]["messages"]["refused"]["headers"])
    accept(headers, {name: content.decode() for name, content in letter.headers})

    events = feeds.events()
    for envelope in events:
        check_message("events", envelope)
    assert {envelope["type"] for envelope in events} == {form.type for form in PUBLIC_MAPPINGS.values()}
    (states,) = feeds.balances().values()
    for state in states:
        check_message("balances", state)
    assert states[-1]["available"] == sum(envelope["data"]["balance_change"] for envelope in events)
    feeds.assert_published()
