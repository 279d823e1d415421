"""Headless browsers that are signed in to the pages."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.integration.api.ledger_api import LedgerApi
from tests.integration.api.pages.browser import Browser

_numbers = itertools.count(1)


@pytest.fixture
def open_browser(ledger_api: LedgerApi) -> Iterator[Callable[..., Browser]]:
    """A function that opens a new browser without a session."""
    with ExitStack() as stack:

        def open_one(**changes: Any) -> Browser:
            client = stack.enter_context(ledger_api.client(headers={}, **changes))
            return Browser(client, ledger_api)

        yield open_one


@pytest.fixture
def studio(client: Any, ledger_api: LedgerApi) -> str:
    """The id of an Indian organisation with two runs, projected."""
    organisation_id = f"studio-{next(_numbers)}"
    body = {"time_zone": "Asia/Kolkata", "currency": "INR"}
    client.put(f"/v1/organisations/{organisation_id}", json=body).raise_for_status()
    client.post(
        f"/v1/organisations/{organisation_id}/purchases",
        json={
            "credits": 125_000,
            "payment_id": f"pay_{organisation_id}",
            "order_id": "order_7",
            "gateway": "razorpay",
            "currency": "INR",
        },
    ).raise_for_status()
    # A user id that no other test uses: people belong to the whole platform.
    ledger_api.charge(organisation_id, "run-1", 4_000, user="u-runner")
    ledger_api.charge(organisation_id, "run-2", 1_200, user="u-runner")
    ledger_api.catch_up()
    return organisation_id


@pytest.fixture
def admin(open_browser: Callable[..., Browser], studio: str) -> Browser:
    """An admin of the studio, signed in."""
    return open_browser().sign_in("u-admin", organisations={studio: "admin"})


@pytest.fixture
def member(open_browser: Callable[..., Browser], studio: str) -> Browser:
    """A member of the studio, signed in."""
    return open_browser().sign_in("u-member", organisations={studio: "member"})


@pytest.fixture
def staff(open_browser: Callable[..., Browser]) -> Browser:
    """A member of staff, signed in."""
    return open_browser().sign_in("s-1", roles=["staff"])


@pytest.fixture
def auditor(open_browser: Callable[..., Browser]) -> Browser:
    """An auditor, signed in."""
    return open_browser().sign_in("a-1", roles=["auditor"])
