"""All four topics as a broker has them, held against `docs/asyncapi.yaml`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import cast

import msgspec
import pytest

from consumers.public_events import PUBLIC_FORMS
from domain.aggregate import Event
from domain.audit_facts import AuditFact
from domain.auto_top_up import LastTopUp, OffReason, TopUpTerms
from domain.catalogue import INVOICE, PAYMENT
from domain.facts import Plan, PurchaseRefunded, Request
from domain.identity import payment_stream, series_stream
from domain.money import Cost
from domain.organisation import Organisation
from domain.rate_card import RateCard
from tests.auditor.topic import read_topic
from tests.contract.asyncapi import DOCUMENT, accept, check_message, resolve
from tests.histories import append
from tests.integration.consumers.lab import Lab
from tests.integration.consumers.service import Service, publish, wait_until
from tests.integration.consumers.telling import Readers, Telling, publishing_settings
from tests.unit.consumers.records import KafkaRecord, usage_record
from tests.unit.domain.facts import FACTS, HOLD_REQUEST

ORGANISATION = "org-1"


def live(lab: Lab) -> None:
    """Let everything happen to an organisation that no usage message tells of."""
    ledger = lab.ledger

    def hold(run_id: str) -> str:
        wanted = msgspec.structs.replace(HOLD_REQUEST, run_id=run_id, credits=50, photos=50)
        placed = ledger.place_hold(ORGANISATION, wanted, request=lab.request()).recorded.hold
        assert placed is not None
        return placed.hold_id

    lab.open(ORGANISATION, trial_credits=100)
    bought = ledger.record_purchase(
        ORGANISATION, 1_000, payment_id="pay-1", order_id="order-1", gateway="razorpay", request=lab.request()
    )
    administer(lab, bought.recorded.version)
    ledger.change_price(ORGANISATION, 15_000, request=lab.request())
    ledger.change_plan(ORGANISATION, Plan.PRO, expires_at=lab.now + timedelta(365), request=lab.request())
    ledger.change_time_zone(ORGANISATION, "Asia/Kolkata", request=lab.request())
    ledger.set_low_balance_threshold(ORGANISATION, 200, request=lab.request())
    ledger.settle_hold(ORGANISATION, hold("run-1"), 30, rates=RateCard(), request=lab.request())
    ledger.release_hold(ORGANISATION, hold("run-2"), request=lab.request())
    hold("run-3")  # lapses when the first usage is charged
    charges = [
        version
        for (version,) in lab.connection.execute(
            "SELECT originator_version FROM ledger.events WHERE topic = 'usage_charged.v1'"
        )
    ]
    ledger.refund_charge(ORGANISATION, charges[0], 5, reason="blurred", request=lab.request())


def administer(lab: Lab, purchase: int) -> None:
    """Let happen what happens around credits: refunds of money, keys, billing details, payments, invoices."""
    organisation = lab.ledger.organisation(ORGANISATION)
    refunded = organisation.refund_purchase(
        purchase, 10, payment_id="payment-1", refund_id="refund-1", cost=Cost(20, 0), request=lab.request()
    )
    organisation.reverse_purchase_refund(cast(PurchaseRefunded, refunded.fact), lab.request())
    for fact in FACTS.values():
        if isinstance(fact, AuditFact):
            organisation.note(msgspec.structs.replace(fact, recorded_at=lab.now))
    top_up(organisation, lab.request())
    append(lab.connection, organisation.collect_events())
    for stream, topics in ((payment_stream("payment-1"), PAYMENT), (series_stream("CL"), INVOICE)):
        append(
            lab.connection, [Event(stream, number, FACTS[topic]) for number, topic in enumerate(topics, 1)]
        )


def top_up(organisation: Organisation, request: Request) -> None:
    """Let auto top-up be switched on and changed, begin, hold back, and be switched off."""
    terms = TopUpTerms(1_000, 1_000_000)
    organisation.switch_on_auto_top_up(terms, payment_id="payment-1", most_minor=2_000, request=request)
    organisation.change_auto_top_up(terms, 2_000, request)
    organisation.top_up("top-1", 2_000, LastTopUp.NONE, request)
    organisation.top_up("top-2", 2_000, LastTopUp.PAID, request)
    organisation.switch_off_auto_top_up(OffReason.ASKED, request)


def charged(service: Service, count: int) -> bool:
    return service.consumer.ingest.counts.charges == count


@pytest.mark.slow
def test_all_that_goes_over_the_wire_is_described(
    lab: Lab, broker: str, topic_name: Callable[[str], str]
) -> None:
    settings = publishing_settings(broker, topic_name).model_copy(
        update={"kafka_group_id": topic_name("group")}
    )
    readers = Readers(settings, lab.connection, lab.service)
    live(lab)
    with Service(settings, lab.service) as service, Telling(settings, lab.service):
        wait_until(lambda: service.owned)
        for number, photos in enumerate([950, 500], start=1):  # low, then nothing left
            publish(settings, [usage_record(f"m-{number}", ORGANISATION, photos)])
            wait_until(partial(charged, service, number))
        publish(settings, [KafkaRecord(b"org-1", b"not JSON")])
        wait_until(lambda: service.consumer.ingest.counts.dead_letters == 1)
        lab.grant(ORGANISATION, 5_000)
        readers.project()
        wait_until(readers.told)

    servers = str(settings.kafka_bootstrap_servers)
    for record in read_topic(servers, settings.usage_topic):
        if record.value != b"not JSON":
            check_message("usage", json.loads(record.value or b""))
    (letter,) = read_topic(servers, settings.dead_letter_topic)
    headers = resolve(DOCUMENT["components"]["messages"]["refused"]["headers"])
    accept(headers, {name: content.decode() for name, content in letter.headers})

    events = readers.events()
    for event in events:
        check_message("events", event)
    assert {event["type"] for event in events} == {form.type for form in PUBLIC_FORMS.values()}
    (states,) = readers.balances().values()
    for state in states:
        check_message("balances", state)
    assert states[-1]["available"] == sum(event["data"]["balance_change"] for event in events)
    readers.assert_told()
