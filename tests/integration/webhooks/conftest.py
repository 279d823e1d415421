"""One webhook environment per test, and receivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.webhooks.receiver import Answer, Receiver
    from tests.integration.webhooks.webhook_environment import WebhookEnvironment


@pytest.fixture(autouse=True)
def short_poll_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short poll interval: no notification wakes a deliverer when the test moves its clock."""
    monkeypatch.setattr("infra.webhooks.deliverer.POLL_S", 0.02)


@pytest.fixture
def webhook_env(migrated_database: str, service_database: str) -> Iterator[WebhookEnvironment]:
    from tests.integration.webhooks.webhook_environment import WebhookEnvironment

    webhook_env = WebhookEnvironment(migrated_database, service_database)
    yield webhook_env
    webhook_env.ledger.close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Receiver]]:
    """A function that starts a receiver with its responses."""
    from tests.integration.webhooks.receiver import Receiver, receiving

    with ExitStack() as listening:

        def start(*answers: Answer) -> Receiver:
            return listening.enter_context(receiving(Receiver(answers or (204,))))

        yield start
