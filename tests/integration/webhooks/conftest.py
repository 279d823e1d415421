"""A lab for each story, and receivers that listen for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.webhooks.lab import Lab
    from tests.integration.webhooks.receiver import Answer, Receiver


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wakes a deliverer when the story moves its clock."""
    monkeypatch.setattr("infra.webhooks.deliverer.POLL_S", 0.02)


@pytest.fixture
def lab(migrated_database: str, service_database: str) -> Iterator[Lab]:
    from tests.integration.webhooks.lab import Lab

    lab = Lab(migrated_database, service_database)
    yield lab
    lab.ledger.close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Receiver]]:
    """A function that starts a receiver with its answers."""
    from tests.integration.webhooks.receiver import Receiver, receiving

    with ExitStack() as listening:

        def start(*answers: Answer) -> Receiver:
            return listening.enter_context(receiving(Receiver(answers or (204,))))

        yield start
