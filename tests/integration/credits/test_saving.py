"""Saving aggregates with the library's `save`, beside the ledger's commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from domain.credits.ledger import Ledger
from domain.credits.organisation_state import SNAPSHOT_EVERY
from domain.shared.errors import InvariantViolation
from infra.service.composition import credits_of, open_ledger
from tests.unit.credits.builders import grant, opened, request

ORG = "org-4711"


@pytest.fixture
def ledger(service_database: str) -> Iterator[Ledger]:
    with open_ledger(service_database) as ledger:
        yield ledger


def test_commands_continue_from_what_was_saved(ledger: Ledger) -> None:
    organisation = opened()
    for _ in range(SNAPSHOT_EVERY):
        grant(organisation, 1)
    recordings = ledger.save(organisation)
    assert recordings[-1].notification.id == SNAPSHOT_EVERY + 1
    assert (
        credits_of(ledger).commands.change_price(ORG, 30_000, context=request()).value.balance
        == SNAPSHOT_EVERY
    )


def test_what_does_not_add_up_is_not_saved(ledger: Ledger) -> None:
    organisation = opened(200)
    organisation.balance += 1
    with pytest.raises(InvariantViolation):
        ledger.save(None, organisation)
    assert ledger.recorder.max_notification_id() is None
