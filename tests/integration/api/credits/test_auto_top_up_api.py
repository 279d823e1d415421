"""Auto top-up over HTTP: a purchase switches it on; then it can be read, changed and switched off."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from domain.shared.command_context import CommandContext
from tests.integration.api.ledger_api import LedgerApi, invalid_fields, problem_of
from tests.payment_gateway import InMemoryGateway

if TYPE_CHECKING:
    from starlette.testclient import TestClient

DETAILS = {
    "name": "Buyer Ltd",
    "email": "pay@buyer.example",
    "address": {"country": "DE", "city": "Berlin", "postal_code": "10115", "lines": ["Invalidenstr. 1"]},
}
TOP_UP_TERMS = {"credits": 1_000, "auto_top_up": {"threshold": 200, "per_day": 2}}


@pytest.fixture
def buy(
    client: TestClient, organisation: str, gateway: InMemoryGateway, ledger_api: LedgerApi
) -> Callable[[], str]:
    """A function that makes the purchase that switches it on, and returns the payment's id."""

    def pay() -> str:
        client.put(f"{organisation}/billing-details", json=DETAILS).raise_for_status()
        quoted = client.post(f"{organisation}/purchase-quotes", json=TOP_UP_TERMS).json()
        body = {"quote_id": quoted["quote_id"], "gateway": "razorpay"}
        begun = client.post(f"{organisation}/payments", json=body).json()
        attempt = gateway.pay(begun["order_id"])
        services = ledger_api.services
        services.payment_tracking.record_attempt(
            "razorpay", attempt, CommandContext(services.clock(), None, "test")
        )
        return str(begun["payment_id"])

    return pay


def test_it_is_off_until_a_purchase_switches_it_on(
    organisation: str, buy: Callable[[], str], read: Callable[..., Any]
) -> None:
    before = read(f"{organisation}/auto-top-up")
    assert (before["is_on"], before["credits"], before["off_reason"]) == (False, None, None)
    payment_id = buy()
    after = read(f"{organisation}/auto-top-up")
    shown = (after["is_on"], after["credits"], after["threshold"], after["per_day"], after["begun_today"])
    assert shown == (True, 1_000, 200, 2, 0)
    assert (after["card_of"], after["most_minor"], after["currency"]) == (payment_id, 2_000, "USD")


def test_it_needs_billing_details_and_allows_one_card(
    client: TestClient, organisation: str, buy: Callable[[], str]
) -> None:
    def begin() -> str:
        quoted = client.post(f"{organisation}/purchase-quotes", json=TOP_UP_TERMS).json()
        body = {"quote_id": quoted["quote_id"], "gateway": "razorpay"}
        return problem_of(client.post(f"{organisation}/payments", json=body))

    assert begin() == "billing-details-missing"
    buy()
    assert begin() == "auto-top-up-is-on"


def test_it_is_changed_and_switched_off(
    client: TestClient, organisation: str, buy: Callable[[], str], read: Callable[..., Any]
) -> None:
    buy()
    terms = {"credits": 1_000, "threshold": 500, "per_day": 3}
    changed = client.put(f"{organisation}/auto-top-up", json=terms, headers={"Idempotency-Key": "k"})
    again = client.put(f"{organisation}/auto-top-up", json=terms, headers={"Idempotency-Key": "k"})
    assert (changed.status_code, again.json()) == (200, changed.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    assert read(f"{organisation}/auto-top-up")["threshold"] == 500
    for _ in range(2):
        assert client.delete(f"{organisation}/auto-top-up").status_code == 204
    after = read(f"{organisation}/auto-top-up")
    assert (after["is_on"], after["off_reason"], after["held_back"]) == (False, "asked", None)


def test_it_cannot_be_changed_while_it_is_off(client: TestClient, organisation: str) -> None:
    answer = client.put(f"{organisation}/auto-top-up", json={"credits": 1_000, "threshold": 500})
    assert (answer.status_code, problem_of(answer)) == (409, "auto-top-up-is-off")


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"credits": 1_001, "threshold": 500}, "credits"),
        ({"credits": 999, "threshold": 500}, "credits"),
        ({"credits": 1_000, "threshold": 0}, "threshold"),
        ({"credits": 1_000, "threshold": 500, "per_day": 11}, "per_day"),
    ],
)
def test_invalid_terms_are_refused(
    client: TestClient, organisation: str, buy: Callable[[], str], terms: dict[str, int], field: str
) -> None:
    buy()
    answer = client.put(f"{organisation}/auto-top-up", json=terms)
    assert answer.status_code == 422
    assert invalid_fields(answer) == [field]


def test_a_quote_contains_the_auto_top_up_terms(client: TestClient, organisation: str) -> None:
    for asked in (TOP_UP_TERMS, {"credits": 1_000}):
        quoted = client.post(f"{organisation}/purchase-quotes", json=asked).json()
        assert quoted["auto_top_up"] == asked.get("auto_top_up")


def test_only_a_purchase_of_credits_switches_it_on(client: TestClient, organisation: str) -> None:
    answer = client.post(f"{organisation}/purchase-quotes", json={**TOP_UP_TERMS, "plan": "pro"})
    assert (answer.status_code, invalid_fields(answer)) == (422, ["plan"])
