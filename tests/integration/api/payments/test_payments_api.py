"""Purchases over HTTP: quote, payment, return, refund; and the webhooks of gateways."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from domain.payments.gateway import AttemptStatus
from tests.integration.api.ledger_api import LedgerApi, invalid_fields, problem_of
from tests.payment_gateway import SIGNATURE, InMemoryGateway

if TYPE_CHECKING:
    from starlette.testclient import TestClient


@pytest.fixture
def quote(client: TestClient, organisation: str) -> Callable[..., Any]:
    def ask(credits: int = 1_000, plan: str = "pay_as_you_go") -> Any:
        answer = client.post(f"{organisation}/purchase-quotes", json={"plan": plan, "credits": credits})
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


@pytest.fixture
def begin(client: TestClient, organisation: str, quote: Callable[..., Any]) -> Callable[..., Any]:
    def pay(**headers: str) -> Any:
        body = {"quote_id": quote()["quote_id"], "gateway": "razorpay"}
        answer = client.post(f"{organisation}/payments", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return answer.json()

    return pay


def test_a_quote_has_its_parts(quote: Callable[..., Any]) -> None:
    quoted = quote(1_000, "pro")
    assert [line["item"] for line in quoted["lines"]] == ["pro", "credits"]
    assert quoted["total_minor"] == 22_000
    assert quoted["currency"] == "USD"


def test_from_the_quote_to_the_credits(
    client: TestClient,
    organisation: str,
    begin: Callable[..., Any],
    gateway: InMemoryGateway,
    read: Callable[..., Any],
) -> None:
    begun = begin()
    assert (begun["status"], begun["total_minor"]) == ("pending", 2_000)
    assert begun["checkout"]["url"].startswith("https://")
    body = gateway.notification_of(gateway.pay(begun["order_id"]))
    response = client.post("/v1/gateways/razorpay/webhooks", content=body, headers={"X-Signature": SIGNATURE})
    assert (response.status_code, response.content) == (204, b"")
    assert read(f"{organisation}/balance")["balance"] == 1_200
    payment = read(f"{organisation}/payments/{begun['payment_id']}")["payment"]
    assert (payment["status"], payment["flag"], payment["credits"]) == ("completed", None, 1_000)
    addition = read(f"{organisation}/transactions", kind="addition")["transactions"][0]
    assert addition["details"]["payment_id"] == payment["gateway_payment_id"]


def test_an_unsigned_webhook_is_refused(
    client: TestClient, begin: Callable[..., Any], gateway: InMemoryGateway
) -> None:
    body = gateway.notification_of(gateway.pay(begin()["order_id"]))
    response = client.post("/v1/gateways/razorpay/webhooks", content=body, headers={"X-Signature": "x"})
    assert (response.status_code, problem_of(response)) == (422, "notice-refused")
    assert problem_of(client.post("/v1/gateways/cash/webhooks", content=body)) == "gateway-unknown"
    large = client.post("/v1/gateways/razorpay/webhooks", content=b"x" * 65_537)
    assert problem_of(large) == "body-too-large"


def test_a_webhook_of_an_unknown_order_is_accepted_and_ignored(
    client: TestClient, gateway: InMemoryGateway, begin: Callable[..., Any]
) -> None:
    body = gateway.notification_of(gateway.pay(begin()["order_id"])).replace(b"order_pay-", b"other_pay-")
    response = client.post("/v1/gateways/razorpay/webhooks", content=body, headers={"X-Signature": SIGNATURE})
    assert response.status_code == 204


@pytest.mark.parametrize("signature", [SIGNATURE, "forged"])
def test_a_browser_returns_from_another_site(
    ledger_api: LedgerApi,
    organisation: str,
    begin: Callable[..., Any],
    gateway: InMemoryGateway,
    signature: str,
) -> None:
    begun = begin()
    notification = gateway.notification_of(gateway.pay(begun["order_id"])).decode()
    with ledger_api.client(headers={}) as browser:
        back = browser.post(
            f"/credits/payments/{begun['payment_id']}/return",
            data={"notice": notification, "by": signature},
            headers={"Origin": "https://api.razorpay.com", "Sec-Fetch-Site": "cross-site"},
            follow_redirects=False,
        )
    assert back.status_code == 303
    name = organisation.rpartition("/")[2]
    assert back.headers["location"] == f"/credits/billing?payment={begun['payment_id']}&organisation={name}"
    payment = ledger_api.services.payments.payment(begun["payment_id"])
    assert payment.status == "completed"


@pytest.mark.parametrize("payment_id", ["nobody", "..%2F..%2Fevil.example"])
def test_a_return_always_redirects_to_our_page(ledger_api: LedgerApi, payment_id: str) -> None:
    with ledger_api.client(headers={}) as browser:
        back = browser.post(f"/credits/payments/{payment_id}/return", follow_redirects=False)
    assert back.status_code == 303
    assert back.headers["location"].startswith("/credits/billing?payment=")


def test_recheck_asks_the_gateway(
    client: TestClient, organisation: str, begin: Callable[..., Any], gateway: InMemoryGateway
) -> None:
    begun = begin()
    path = f"{organisation}/payments/{begun['payment_id']}/recheck"
    assert client.post(path, json={}).json()["status"] == "pending"
    gateway.pay(begun["order_id"])
    assert client.post(path, json={}).json()["status"] == "completed"


def test_a_payer_abandons_a_payment(client: TestClient, organisation: str, begin: Callable[..., Any]) -> None:
    path = f"{organisation}/payments/{begin()['payment_id']}"
    assert client.post(f"{path}/checkout", json={}).json()["checkout"] is not None
    assert client.post(f"{path}/abandon", json={}).json()["status"] == "abandoned"
    assert client.post(f"{path}/checkout", json={}).json()["checkout"] is None


def test_a_refund_takes_credits_back(
    client: TestClient,
    organisation: str,
    begin: Callable[..., Any],
    gateway: InMemoryGateway,
    read: Callable[..., Any],
) -> None:
    begun = begin()
    path = f"{organisation}/payments/{begun['payment_id']}"
    assert problem_of(client.post(f"{path}/refunds", json={})) == "payment-not-refundable"
    gateway.pay(begun["order_id"])
    client.post(f"{path}/recheck", json={})
    for _ in range(2):
        back = client.post(f"{path}/refunds", json={"credits": 400}, headers={"Idempotency-Key": "k"})
        assert (back.status_code, back.json()["status"]) == (201, "refunded")
    assert back.headers["Idempotent-Replayed"] == "true"
    payment = read(path)["payment"]
    assert (payment["refunded_credits"], payment["refunded_minor"]) == (400, 800)
    too_much = client.post(f"{path}/refunds", json={"credits": 601})
    assert (problem_of(too_much), invalid_fields(too_much)) == ("refund-exceeds-purchase", ["credits"])
    addition = read(f"{organisation}/transactions", kind="addition")["transactions"][0]
    assert (addition["type"], addition["credits"]) == ("purchase_refund", -400)


def test_a_repeated_request_has_one_payment(
    client: TestClient, organisation: str, quote: Callable[..., Any], read: Callable[..., Any]
) -> None:
    body = {"quote_id": quote()["quote_id"], "gateway": "razorpay"}
    answers = [
        client.post(f"{organisation}/payments", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert len({answer.json()["payment_id"] for answer in answers}) == 1
    assert "Idempotent-Replayed" in answers[1].headers
    assert len(read(f"{organisation}/payments")["payments"]) == 1


def test_staff_request_a_custom_payment(
    client: TestClient, organisation: str, read: Callable[..., Any], gateway: InMemoryGateway
) -> None:
    body = {"amount_minor": 5_000, "remark": "a banner", "gateway": "razorpay"}
    blank = client.post(f"{organisation}/custom-payments", json={**body, "remark": "  "})
    assert (blank.status_code, invalid_fields(blank)) == (422, ["remark"])
    refused = client.post(f"{organisation}/custom-payments", json={**body, "amount_minor": 99})
    assert (refused.status_code, invalid_fields(refused)) == (422, ["amount_minor"])
    assert "at least USD 1.00 with tax" in refused.json()["detail"]
    begun = client.post(f"{organisation}/custom-payments", json=body)
    assert begun.status_code == 201
    payment = read(f"{organisation}/payments")["payments"][0]
    assert (payment["kind"], payment["remark"], payment["total_minor"]) == ("custom", "a banner", 5_000)
    gateway.pay(begun.json()["order_id"], AttemptStatus.FAILED, reason="BAD_REQUEST_ERROR")
    client.post(f"{organisation}/payments/{payment['payment_id']}/recheck", json={})
    payment = read(f"{organisation}/payments/{payment['payment_id']}")["payment"]
    assert (payment["status"], payment["reason"]) == ("failed", "BAD_REQUEST_ERROR")


def test_an_admin_pays_an_amount_by_a_quote(
    client: TestClient, organisation: str, read: Callable[..., Any], gateway: InMemoryGateway
) -> None:
    asked = {"plan": "custom", "amount_minor": 5_000, "remark": "a banner"}
    quoted = client.post(f"{organisation}/purchase-quotes", json=asked).json()
    assert [(line["item"], line["amount_minor"]) for line in quoted["lines"]] == [("custom", 5_000)]
    assert (quoted["credits"], quoted["remark"], quoted["total_minor"]) == (0, "a banner", 5_000)
    body = {"quote_id": quoted["quote_id"], "gateway": "razorpay"}
    begun = client.post(f"{organisation}/payments", json=body).json()
    gateway.pay(begun["order_id"])
    client.post(f"{organisation}/payments/{begun['payment_id']}/recheck", json={})
    payment = read(f"{organisation}/payments/{begun['payment_id']}")["payment"]
    assert (payment["kind"], payment["remark"], payment["status"]) == ("custom", "a banner", "completed")


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({"plan": "custom"}, ["amount_minor", "remark"]),
        ({"plan": "custom", "credits": 1_000, "amount_minor": 1, "remark": "x"}, ["credits"]),
        ({"plan": "custom", "amount_minor": 0, "remark": ""}, ["amount_minor", "remark"]),
        ({"plan": "custom", "amount_minor": 99, "remark": "x"}, ["amount_minor"]),
        ({"credits": 1_000, "amount_minor": 1, "remark": "x"}, ["amount_minor", "remark"]),
        ({"plan": "pay_as_you_go"}, ["credits"]),
    ],
)
def test_missing_and_superfluous_fields_of_a_plan_are_named(
    client: TestClient, organisation: str, asked: dict[str, Any], fields: list[str]
) -> None:
    refused = client.post(f"{organisation}/purchase-quotes", json=asked)
    assert (refused.status_code, invalid_fields(refused)) == (422, fields)


def test_refusals_name_their_field(client: TestClient, organisation: str, quote: Callable[..., Any]) -> None:
    few = client.post(f"{organisation}/purchase-quotes", json={"credits": 999})
    assert (few.status_code, invalid_fields(few)) == (422, ["credits"])
    body = {"quote_id": "nobody's", "gateway": "razorpay"}
    unknown = client.post(f"{organisation}/payments", json=body)
    assert (problem_of(unknown), invalid_fields(unknown)) == ("quote-unknown", ["quote_id"])
    body = {"quote_id": quote()["quote_id"], "gateway": "cash"}
    assert problem_of(client.post(f"{organisation}/payments", json=body)) == "gateway-unknown"
    client.put(f"{organisation}/plan", json={"plan": "pro"})
    again = client.post(f"{organisation}/purchase-quotes", json={"plan": "pro", "credits": 0})
    assert (again.status_code, problem_of(again)) == (400, "pro-already")
    client.put(f"{organisation}/plan", json={"plan": "enterprise"})
    custom = {"plan": "custom", "amount_minor": 1, "remark": "x"}
    closed = client.post(f"{organisation}/purchase-quotes", json=custom)
    assert (closed.status_code, problem_of(closed)) == (409, "billing-is-custom")


def test_an_unavailable_gateway_has_a_retry_after(
    client: TestClient, organisation: str, quote: Callable[..., Any], gateway: InMemoryGateway
) -> None:
    body = {"quote_id": quote()["quote_id"], "gateway": "razorpay"}
    gateway.is_down = True
    down = client.post(f"{organisation}/payments", json=body)
    gateway.is_down = False
    assert (down.status_code, problem_of(down)) == (503, "gateway-unavailable")
    assert down.headers["Retry-After"] == "5"
    assert client.post(f"{organisation}/payments", json=body).json()["status"] == "pending"


def test_pages_of_payments(
    client: TestClient, organisation: str, begin: Callable[..., Any], read: Callable[..., Any]
) -> None:
    begun = [begin()["payment_id"] for _ in range(3)]
    first = read(f"{organisation}/payments", limit=2)
    rest = read(f"{organisation}/payments", limit=2, cursor=first["next_cursor"])
    listed = [payment["payment_id"] for page in (first, rest) for payment in page["payments"]]
    assert listed == begun[::-1]
    assert rest["next_cursor"] is None
    missing = client.get(f"{organisation}/payments/nobody")
    assert (missing.status_code, problem_of(missing)) == (404, "payment-unknown")
