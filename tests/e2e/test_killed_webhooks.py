"""The webhook deliverer is killed at the worst moment: after a delivery, before it is recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Worker
from tests.integration.webhooks.receiver import Receiver, receiving
from tests.integration.webhooks.webhook_environment import WebhookEnvironment


@pytest.fixture
def webhook_env(migrated_database: str, service_database: str) -> Iterator[WebhookEnvironment]:
    webhook_env = WebhookEnvironment(migrated_database, service_database)
    yield webhook_env
    webhook_env.ledger.close()


def test_a_deliverer_killed_before_recording_sends_again_with_the_same_id(
    webhook_env: WebhookEnvironment, tmp_path: Path
) -> None:
    environment = {"DATABASE_URL": webhook_env.service, "WEBHOOK_ALLOW_PRIVATE": "true"}
    worker = Worker("webhooks", "deliver-webhooks", environment, tmp_path)
    with receiving(Receiver()) as receiver:
        webhook_env.add(receiver)
        webhook_env.purchase("pay-1")
        receiver.on_receipt = worker.kill  # it has sent the message, and never gets the response
        try:
            worker.start()
            (first,) = receiver.wait_for(1)
            while worker.is_running:
                time.sleep(0.01)
            receiver.on_receipt = lambda: None
            worker.start()
            _, again = receiver.wait_for(2)
            webhook_env.purchase("pay-2")
            *_, last = receiver.wait_for(3)
            assert worker.stop(within_s=10) == 0, worker.log
        finally:
            worker.end()
    assert first.message_id == again.message_id
    assert first.body == again.body
    assert last.content["data"]["payment_id"] == "pay-2"
    assert "SECRET" not in worker.log
