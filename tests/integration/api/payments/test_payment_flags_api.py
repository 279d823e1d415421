"""Refunds without credits, and flags of all organisations, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.api.ledger_api import invalid_fields, problem_of
from tests.payment_gateway import InMemoryGateway

if TYPE_CHECKING:
    from starlette.testclient import TestClient


@pytest.fixture
def custom(client: TestClient, organisation: str, gateway: InMemoryGateway) -> Callable[..., str]:
    """A function that requests a custom payment, has it paid, maybe repeatedly, and returns its path."""

    def pay(times: int = 1, amount_minor: int | None = None) -> str:
        body = {"amount_minor": 5_000, "remark": "a banner", "gateway": "razorpay"}
        begun = client.post(f"{organisation}/custom-payments", json=body).json()
        for _ in range(times):
            gateway.pay(begun["order_id"], amount_minor=amount_minor)
        path = f"{organisation}/payments/{begun['payment_id']}"
        assert client.post(f"{path}/recheck", json={}).status_code == 200
        return path

    return pay


@pytest.fixture
def own_flags(read: Callable[..., Any], organisation: str) -> Callable[[], list[Any]]:
    """A function that returns the organisation's flags from the list of all."""

    def flags() -> list[Any]:
        name = organisation.rpartition("/")[2]
        listed = read("/v1/payment-flags", limit=500)["flags"]
        return [flag for flag in listed if flag["organisation_id"] == name]

    return flags


def test_an_amount_is_refunded_in_parts(
    client: TestClient, custom: Callable[..., str], read: Callable[..., Any]
) -> None:
    path = custom()
    for _ in range(2):
        back = client.post(f"{path}/refunds", json={"amount_minor": 2_000}, headers={"Idempotency-Key": "k"})
        assert (back.status_code, back.json()["status"]) == (201, "refunded")
    assert back.headers["Idempotent-Replayed"] == "true"
    assert read(path)["payment"]["refunded_minor"] == 2_000
    too_much = client.post(f"{path}/refunds", json={"amount_minor": 3_001})
    assert (problem_of(too_much), invalid_fields(too_much)) == ("refund-exceeds-payment", ["amount_minor"])
    assert client.post(f"{path}/refunds", json={"amount_minor": 3_000}).status_code == 201
    assert read(path)["payment"]["refunded_minor"] == 5_000


def test_a_refund_has_one_subject(client: TestClient, custom: Callable[..., str]) -> None:
    path = custom()
    both = client.post(f"{path}/refunds", json={"credits": 1, "amount_minor": 1})
    assert (both.status_code, invalid_fields(both)) == (422, ["amount_minor"])
    nothing = client.post(f"{path}/refunds", json={"amount_minor": 0})
    assert (nothing.status_code, invalid_fields(nothing)) == (422, ["amount_minor"])
    unsaid = client.post(f"{path}/refunds", json={})
    assert (unsaid.status_code, invalid_fields(unsaid)) == (422, ["amount_minor"])
    assert "the payment bought no credits" in unsaid.json()["detail"]
    assert problem_of(client.post(f"{path}/refunds", json={"credits": 1})) == "payment-not-refundable"
    unknown = client.post(f"{path}/refunds", json={"gateway_payment_id": "pay_x"})
    assert problem_of(unknown) == "payment-not-refundable"


def test_a_second_payment_is_listed_and_refunded(
    client: TestClient,
    custom: Callable[..., str],
    read: Callable[..., Any],
    own_flags: Callable[[], list[Any]],
) -> None:
    path = custom(times=2)
    (flag,) = own_flags()
    assert (flag["flag"], flag["amount_minor"], flag["gives_back"]) == ("paid_twice", 5_000, True)
    assert flag["paid_by"] not in (None, flag["gateway_payment_id"])
    assert read(path)["payment"]["flag"] == "paid_twice"
    back = client.post(f"{path}/refunds", json={"gateway_payment_id": flag["gateway_payment_id"]})
    assert (back.status_code, back.json()["status"]) == (201, "completed")
    (settled,) = own_flags()
    assert (settled["refund_id"], settled["gives_back"]) == (back.json()["refund_id"], False)
    payment = read(path)["payment"]
    assert (payment["flag"], payment["refunded_minor"], payment["open_refunds"]) == (None, 0, 0)


def test_staff_settle_a_flag(
    client: TestClient, custom: Callable[..., str], own_flags: Callable[[], list[Any]]
) -> None:
    path = custom(amount_minor=4_000)
    (flag,) = own_flags()
    body = {name: flag[name] for name in ("flag", "gateway_payment_id", "amount_minor")}
    blank = client.post(f"{path}/flags/settle", json={**body, "note": "  "})
    assert (blank.status_code, invalid_fields(blank)) == (422, ["note"])
    body["note"] = "The payer keeps it for the next order."
    for _ in range(2):
        settled = client.post(f"{path}/flags/settle", json=body, headers={"Idempotency-Key": "k"})
        assert settled.status_code == 200, settled.text
    assert settled.headers["Idempotent-Replayed"] == "true"
    (flag,) = own_flags()
    assert (flag["note"], flag["refund_id"]) == (body["note"], None)
    assert flag["settled_by"] is not None
    again = client.post(f"{path}/flags/settle", json=body)
    assert (again.status_code, problem_of(again), invalid_fields(again)) == (409, "flag-not-open", ["flag"])
    wrong = client.post(f"{path}/flags/settle", json={**body, "note": "", "flag": "x"})
    assert (wrong.status_code, set(invalid_fields(wrong))) == (422, {"flag", "note"})


def test_pages_of_flags(client: TestClient, custom: Callable[..., str], read: Callable[..., Any]) -> None:
    paths = [custom(amount_minor=4_000 + number) for number in range(3)]
    first = read("/v1/payment-flags", limit=2)
    rest = read("/v1/payment-flags", limit=2, cursor=first["next_cursor"])
    found = [flag["payment_id"] for page in (first, rest) for flag in page["flags"]]
    assert found[:3] == [path.rpartition("/")[2] for path in paths[::-1]]
    foreign = client.get("/v1/payment-flags", params={"cursor": "x"})
    assert (foreign.status_code, invalid_fields(foreign)) == (422, ["cursor"])
