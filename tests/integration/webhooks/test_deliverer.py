"""Webhook delivery from the log to a receiver: events, order, retries and expiry."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from domain.credits.audit_events import WebhookEndpointDisabled
from domain.webhooks.endpoints import FAILURE_PERIOD_MAX, OLD_SECRET_VALIDITY
from infra.service.composition import credits_of
from infra.service.telemetry import webhook_metrics
from infra.webhooks import outbox
from tests.histories import history
from tests.integration.webhooks.receiver import Received, Receiver
from tests.integration.webhooks.webhook_environment import ORG, WebhookEnvironment, delivering

Listen = Callable[..., Receiver]


def wait_until(condition: Callable[[], Any], within_s: float = 15.0) -> Any:
    """Return the first true value of a condition."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the wait timed out"
        time.sleep(0.01)
    return value


def types(received: list[Received]) -> list[str]:
    return [each.content["type"].removeprefix("credit_ledger.") for each in received]


def test_low_exhausted_replenished_and_purchases_are_sent_in_order(
    webhook_env: WebhookEnvironment, listen: Listen
) -> None:
    webhook_env.purchase("pay-before")  # there is no endpoint yet, so this is not sent
    receiver = listen()
    _, secret = webhook_env.add(receiver)
    credits_of(webhook_env.ledger).commands.set_low_balance_threshold(ORG, 50, context=webhook_env.request())
    webhook_env.charge(1_080)
    webhook_env.charge(30)
    webhook_env.grant(100)
    webhook_env.purchase("pay-1")
    with delivering(webhook_env.deliverer()):
        received = receiver.wait_for(4)
    assert types(received) == [
        "balance_went_low.v1",
        "credits_exhausted.v1",
        "credits_replenished.v1",
        "credits_purchased.v1",
    ]
    low, *_, purchased = received
    assert low.content["data"]["organisation_id"] == ORG
    assert (low.content["data"]["available"], low.content["data"]["threshold"]) == (20, 50)
    assert purchased.content["data"]["payment_id"] == "pay-1"
    assert purchased.content["timestamp"] == "2026-11-01T09:00:00Z"
    assert purchased.headers["webhook-timestamp"] == str(int(webhook_env.now.timestamp()))
    assert all(each.is_signed_with(secret) for each in received)
    assert len(set(receiver.ids)) == 4


def test_a_purchase_is_sent_immediately(webhook_env: WebhookEnvironment, listen: Listen) -> None:
    receiver = listen()
    endpoint, _ = webhook_env.add(receiver)
    with delivering(webhook_env.deliverer()) as deliverer:
        wait_until(lambda: deliverer.is_leader)
        webhook_env.purchase("pay-1")
        receiver.wait_for(1, within_s=2)
        wait_until(lambda: webhook_env.deliveries(endpoint)[0].status == "delivered")
    (delivery,) = webhook_env.deliveries(endpoint)
    assert (delivery.attempts, delivery.last_status, delivery.last_error) == (1, 204, None)
    assert delivery.message_id == receiver.received[0].message_id


def test_only_endpoints_of_the_organisation_get_its_events(
    webhook_env: WebhookEnvironment, listen: Listen
) -> None:
    mine, theirs = listen(), listen()
    webhook_env.open("org-2")
    webhook_env.add(mine)
    webhook_env.add(theirs, "org-2")
    webhook_env.purchase("pay-1")
    webhook_env.purchase("pay-2", "org-2")
    with delivering(webhook_env.deliverer()):
        (to_me,), (to_them,) = mine.wait_for(1), theirs.wait_for(1)
    assert to_me.content["data"]["payment_id"] == "pay-1"
    assert to_them.content["data"]["payment_id"] == "pay-2"


@pytest.mark.parametrize("answer", [500, 302, "drop", "hang"])
def test_a_failed_delivery_is_retried_with_the_same_id(
    webhook_env: WebhookEnvironment, listen: Listen, answer: Any
) -> None:
    receiver = listen(answer, 204)
    endpoint, secret = webhook_env.add(receiver)
    webhook_env.purchase("pay-1")
    with delivering(webhook_env.deliverer(within_s=0.5)):
        receiver.wait_for(1)
        wait_until(lambda: webhook_env.deliveries(endpoint)[0].attempts == 1)
        assert webhook_env.endpoint().failing_since == webhook_env.now
        time.sleep(0.1)
        assert len(receiver.received) == 1, "it is paused"
        webhook_env.later(seconds=5)
        first, again = receiver.wait_for(2)
        wait_until(lambda: webhook_env.deliveries(endpoint)[0].status == "delivered")
    assert first.message_id == again.message_id
    assert first.body == again.body
    assert again.is_signed_with(secret)
    assert first.headers["webhook-timestamp"] != again.headers["webhook-timestamp"]
    assert webhook_env.endpoint().failing_since is None


def test_first_attempts_are_in_order_and_a_refused_message_blocks_no_other(
    webhook_env: WebhookEnvironment, listen: Listen
) -> None:
    receiver = listen(500, 204)
    endpoint, _ = webhook_env.add(receiver)
    for number in range(4):
        webhook_env.purchase(f"pay-{number}")
    with delivering(webhook_env.deliverer()):
        receiver.wait_for(1)
        wait_until(lambda: webhook_env.deliveries(endpoint)[0].attempts == 1)
        webhook_env.later(seconds=2)  # the endpoint's pause is over; the message's is not
        receiver.wait_for(4)
        webhook_env.later(seconds=5)
        received = receiver.wait_for(5)
    paid = [each.content["data"]["payment_id"] for each in received]
    assert paid == ["pay-0", "pay-1", "pay-2", "pay-3", "pay-0"]


def test_a_dead_receiver_does_not_delay_others(webhook_env: WebhookEnvironment, listen: Listen) -> None:
    """There are four threads, and more endpoints that hang."""
    dead, alive = [listen("hang") for _ in range(5)], listen()
    for receiver in dead:
        webhook_env.add(receiver)
    webhook_env.open("org-2")
    webhook_env.add(alive, "org-2")
    webhook_env.purchase("pay-1")
    with delivering(webhook_env.deliverer(threads=4, within_s=1)) as deliverer:
        wait_until(lambda: deliverer.failed >= 5)
        webhook_env.later(minutes=5)
        wait_until(lambda: sum(len(each.received) for each in dead) > 6)
        began = time.monotonic()
        webhook_env.purchase("pay-2", "org-2")
        alive.wait_for(1)
    assert time.monotonic() - began < 2
    assert alive.received[0].at - began < 0.8, "it waited for hanging endpoints"


def test_an_endpoint_that_failed_for_five_days_is_disabled_and_can_be_enabled(
    webhook_env: WebhookEnvironment, listen: Listen
) -> None:
    receiver = listen(500)
    endpoint, _ = webhook_env.add(receiver)
    webhook_env.purchase("pay-1")
    began = webhook_env.now
    with delivering(webhook_env.deliverer()) as deliverer:
        wait_until(lambda: deliverer.failed == 1)
        while webhook_env.endpoint().disabled_at is None:
            assert webhook_env.now - began < 2 * FAILURE_PERIOD_MAX
            failed = deliverer.failed
            webhook_env.later(hours=10)
            wait_until(lambda before=failed: deliverer.failed > before or deliverer.disabled)
        assert webhook_env.now - began >= FAILURE_PERIOD_MAX
        wait_until(lambda: deliverer.disabled == 1)
        event = history(webhook_env.conninfo, ORG)[-1]
        assert isinstance(event, WebhookEndpointDisabled)
        assert (event.endpoint_id, event.failing_since, event.actor) == (endpoint.endpoint_id, began, None)
        assert webhook_env.deliveries(endpoint)[0].status == "given_up"

        attempts = len(receiver.received)
        webhook_env.purchase("pay-missed")
        webhook_env.fill()
        webhook_env.later(days=1)
        receiver.answers = [204]
        assert (
            webhook_env.endpoints.enable(ORG, endpoint.endpoint_id, webhook_env.request()).disabled_at is None
        )
        webhook_env.purchase("pay-2")
        received = receiver.wait_for(attempts + 1)
    assert received[-1].content["data"]["payment_id"] == "pay-2"
    assert len(received) == attempts + 1, "missed events are not sent"


def test_a_receiver_that_answers_gone_is_disabled_immediately(
    webhook_env: WebhookEnvironment, listen: Listen
) -> None:
    receiver = listen(410)
    webhook_env.add(receiver)
    webhook_env.purchase("pay-1")
    with delivering(webhook_env.deliverer()):
        wait_until(lambda: webhook_env.endpoint().disabled_at)
    assert len(receiver.received) == 1


def test_after_a_rotation_both_secrets_sign_for_a_day(
    webhook_env: WebhookEnvironment, listen: Listen
) -> None:
    receiver = listen()
    endpoint, old = webhook_env.add(receiver)
    new = webhook_env.endpoints.rotate_secret(ORG, endpoint.endpoint_id, webhook_env.request())
    webhook_env.purchase("pay-1")
    with delivering(webhook_env.deliverer()):
        receiver.wait_for(1)
        webhook_env.later(seconds=OLD_SECRET_VALIDITY.total_seconds())
        webhook_env.purchase("pay-2")
        meanwhile, after = receiver.wait_for(2)
    assert meanwhile.is_signed_with(old)
    assert meanwhile.is_signed_with(new)
    assert after.is_signed_with(new)
    assert not after.is_signed_with(old)


def test_a_removed_endpoint_gets_no_messages_and_leaves_no_rows(
    webhook_env: WebhookEnvironment, listen: Listen
) -> None:
    receiver = listen(500)
    endpoint, _ = webhook_env.add(receiver)
    webhook_env.purchase("pay-1")
    with delivering(webhook_env.deliverer()) as deliverer:
        wait_until(lambda: deliverer.failed == 1)
        webhook_env.endpoints.remove(ORG, endpoint.endpoint_id, webhook_env.request())
        webhook_env.purchase("pay-2")
        webhook_env.later(days=1)
        time.sleep(0.2)
    assert len(receiver.received) == 1
    with psycopg.connect(webhook_env.conninfo) as connection:
        left = connection.execute("SELECT count(*) FROM ledger.webhook_deliveries").fetchone()
    assert left == (0,)


def test_an_endpoint_removed_during_a_delivery(webhook_env: WebhookEnvironment, listen: Listen) -> None:
    receiver = listen("hang")
    endpoint, _ = webhook_env.add(receiver)
    webhook_env.purchase("pay-1")
    with delivering(webhook_env.deliverer(within_s=0.5)) as deliverer:
        receiver.wait_for(1)
        webhook_env.endpoints.remove(ORG, endpoint.endpoint_id, webhook_env.request())
        wait_until(lambda: deliverer.failed == 1)
    assert webhook_env.endpoints.of(ORG) == []


def test_a_test_message(webhook_env: WebhookEnvironment, listen: Listen) -> None:
    receiver = listen()
    endpoint, secret = webhook_env.add(receiver)
    message_id = webhook_env.endpoints.send_test(ORG, endpoint.endpoint_id, webhook_env.request())
    with delivering(webhook_env.deliverer()):
        (received,) = receiver.wait_for(1)
    assert received.message_id == message_id
    assert received.is_signed_with(secret)
    assert received.content == {
        "type": "credit_ledger.webhook_test.v1",
        "timestamp": "2026-11-01T09:00:00Z",
        "data": {"organisation_id": ORG, "endpoint_id": endpoint.endpoint_id},
    }


def test_concurrent_outboxes_create_each_delivery_once(
    webhook_env: WebhookEnvironment, listen: Listen
) -> None:
    endpoint, _ = webhook_env.add(listen())
    for number in range(20):
        webhook_env.purchase(f"pay-{number}")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: webhook_env.fill(), range(8)))
    assert len(webhook_env.deliveries(endpoint)) == 20


def test_deliveries_and_the_position_are_written_together_or_not_at_all(
    webhook_env: WebhookEnvironment, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, _ = webhook_env.add(listen())
    webhook_env.purchase("pay-1")
    write = outbox.insert_deliveries

    def die_after(*written: Any) -> None:
        write(*written)
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(outbox, "insert_deliveries", die_after)
    with pytest.raises(psycopg.OperationalError):
        webhook_env.fill()
    monkeypatch.undo()
    assert webhook_env.deliveries(endpoint) == []
    webhook_env.fill()
    webhook_env.fill()
    assert len(webhook_env.deliveries(endpoint)) == 1


def test_it_continues_after_a_restart_of_the_database(
    webhook_env: WebhookEnvironment, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = listen()
    webhook_env.add(receiver)
    with delivering(webhook_env.deliverer()) as deliverer:
        wait_until(lambda: deliverer.is_leader)
        with psycopg.connect(webhook_env.conninfo, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        wait_until(lambda: deliverer.failures)
        webhook_env.purchase("pay-1")
        receiver.wait_for(1)


def test_one_of_two_deliverers_works(webhook_env: WebhookEnvironment, listen: Listen) -> None:
    receiver = listen()
    webhook_env.add(receiver)
    with delivering(webhook_env.deliverer()) as one, delivering(webhook_env.deliverer()) as other:
        wait_until(lambda: one.is_leader or other.is_leader)
        for number in range(5):
            webhook_env.purchase(f"pay-{number}")
        receiver.wait_for(5)
        assert not (one.is_leader and other.is_leader)
    assert len(receiver.ids) == len(set(receiver.ids)) == 5


def test_old_deliveries_are_deleted(webhook_env: WebhookEnvironment, listen: Listen) -> None:
    receiver = listen()
    endpoint, _ = webhook_env.add(receiver)
    webhook_env.purchase("pay-1")
    with delivering(webhook_env.deliverer()):
        receiver.wait_for(1)
        wait_until(lambda: webhook_env.deliveries(endpoint)[0].status == "delivered")
        webhook_env.later(days=31)
        wait_until(lambda: webhook_env.deliveries(endpoint) == [])


def test_no_log_line_contains_a_url_or_a_secret(
    webhook_env: WebhookEnvironment, listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver = listen(500, "drop", 410)
    _, secret = webhook_env.add(receiver)
    for number in range(3):
        webhook_env.purchase(f"pay-{number}")
    with delivering(webhook_env.deliverer()) as deliverer:
        for count in range(1, 4):
            wait_until(lambda so_many=count: deliverer.failed >= so_many)
            webhook_env.later(seconds=3)
        wait_until(lambda: webhook_env.endpoint().disabled_at)
    assert "it answered 500" in caplog.text
    assert "SECRET" not in caplog.text
    assert secret.removeprefix("whsec_") not in caplog.text


def test_metrics(webhook_env: WebhookEnvironment, listen: Listen) -> None:
    receiver = listen(500, 204)
    webhook_env.add(receiver)
    webhook_env.purchase("pay-1")
    with delivering(webhook_env.deliverer()) as deliverer:
        wait_until(lambda: deliverer.failed == 1)
        webhook_env.later(seconds=5)
        wait_until(lambda: deliverer.delivered == 1)
        webhook_env.purchase("pay-2")
        receiver.wait_for(3)
        wait_until(lambda: deliverer.delivered == 2)
        values = {
            (sample.name.removeprefix("creditledger_webhook_"), *sample.labels.values()): sample.value
            for metric in webhook_metrics(deliverer).collect()
            for sample in metric.samples
        }
    assert values == {
        ("attempts_total", "delivered"): 2,
        ("attempts_total", "failed"): 1,
        ("lag",): 0,
        ("pending",): 1,  # as of the last poll, two seconds of the clock ago
        ("oldest_seconds",): 5,
        ("endpoints_disabled_total",): 0,
        ("leads",): 1,
        ("interruptions_total",): 0,
    }
