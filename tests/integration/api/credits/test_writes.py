"""Writes: their responses, and the reads after them."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from domain.credits.limits import CREDITS_MAX
from domain.shared.money import PRICE_MILLIONTHS_MAX
from tests.integration.api.ledger_api import STAFF, invalid_fields, problem_of


def test_an_organisation_opens_with_trial_credits_at_the_usual_price(client, read):
    response = client.put("/v1/organisations/org-open", json={"time_zone": "Asia/Kolkata", "currency": "INR"})

    assert response.status_code == 201
    answer = response.json()
    assert answer == {
        "organisation_id": "org-open",
        "version": 2,
        "balance": 200,
        "available": 200,
        "credits": 200,
        "amount_minor": None,
        "tax_minor": None,
        "currency": None,
        "position": int(response.headers["ledger-position"]),
    }
    assert "idempotent-replayed" not in response.headers
    balance = read("/v1/organisations/org-open/balance")
    assert balance == {
        "organisation_id": "org-open",
        "available": 200,
        "balance": 200,
        "on_hold": 0,
        "processing": "allowed",
        "plan": "trial",
        "currency": "INR",
        "cost_per_credit": "1.50",
        "price_millionths": 1_500_000,
        "time_zone": "Asia/Kolkata",
        "as_of": None,
        "position": balance["position"],
    }
    assert balance["position"] >= answer["position"]


def test_an_organisation_opens_once(client, organisation):
    again = client.put(organisation, json={"time_zone": "UTC", "currency": "USD"})
    assert again.status_code == 409
    assert problem_of(again) == "organisation-already-open"


def test_opening_with_nulls_is_opening_without_them(client):
    body = {"time_zone": "UTC", "currency": "USD", "trial_credits": None, "price_millionths": None}
    headers = {"Idempotency-Key": "nulls"}
    first = client.put("/v1/organisations/org-nulls", json=body, headers=headers)
    assert (first.status_code, first.json()["balance"]) == (201, 200)
    without = {name: value for name, value in body.items() if value is not None}
    again = client.put("/v1/organisations/org-nulls", json=without, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    "gateway", ["Razorpay", "razorpay ", "-pay", "caf\u00e9", "raz\norpay", "r" * 129, ""]
)
def test_a_gateway_name_has_one_spelling(client, organisation, gateway):
    body = {"credits": 5, "payment_id": "pay-1", "order_id": "order-1", "gateway": gateway}
    response = client.post(f"{organisation}/purchases", json=body)
    assert response.status_code == 422
    assert invalid_fields(response) == ["gateway"]
    assert "^" not in response.json()["detail"]


def test_opening_without_trial_credits_and_with_a_price_of_its_own(client, read):
    body = {"time_zone": "UTC", "currency": "USD", "trial_credits": 0, "price_millionths": 15_500}
    assert client.put("/v1/organisations/org-poor", json=body).json()["balance"] == 0
    balance = read("/v1/organisations/org-poor/balance")
    assert balance["cost_per_credit"] == "0.0155"
    assert balance["processing"] == "paused"


@pytest.mark.parametrize(
    "organisation_id", ["a/b", "org 4711", "ünïcode-組織", "100%", "a%2Fb", "?x#y", "a:b@c", "~"]
)
def test_any_printable_organisation_id_survives_the_url(client, read, organisation_id):
    path = f"/v1/organisations/{quote(organisation_id, safe='')}"
    opened = client.put(path, json={"time_zone": "UTC", "currency": "USD"})
    assert opened.status_code == 201, opened.text
    assert opened.json()["organisation_id"] == organisation_id
    assert read(f"{path}/balance")["organisation_id"] == organisation_id


@pytest.mark.parametrize("segment", ["a%00b", "%ED%A0%80", "%FF", "x" * 65, "a%0Ab", "%E2%80%8B"])
def test_an_invalid_organisation_id_is_refused(client, segment):
    body = {"time_zone": "UTC", "currency": "USD"}
    response = client.put(f"/v1/organisations/{segment}", json=body)
    assert problem_of(response) == "invalid-request"
    assert invalid_fields(response) == ["organisation_id"]


def test_a_grant_adds_credits(client, organisation, read):
    response = client.post(
        f"{organisation}/grants",
        json={"credits": 500, "kind": "promotional", "reason": "spring campaign"},
        headers={"X-Request-Id": "req-77"},
    )
    assert response.status_code == 201
    assert response.json()["balance"] == 700
    assert response.json()["credits"] == 500
    assert response.headers["x-request-id"] == "req-77"
    newest = read(f"{organisation}/transactions", kind="addition")["transactions"][0]
    assert (newest["type"], newest["credits"], newest["actor"]) == ("free_credits", 500, STAFF)
    assert newest["details"] == {"kind": "promotional", "reason": "spring campaign"}


def test_the_request_id_is_the_events_cause(client, organisation, ledger_api):
    answer = client.post(
        f"{organisation}/grants",
        json={"credits": 1, "kind": "admin", "reason": "x"},
        headers={"X-Request-Id": "cause-1"},
    ).json()
    ledger = ledger_api.services.ledger
    stream = ledger.organisation(answer["organisation_id"]).id
    assert [envelope.event.cause for envelope in ledger.events.get(stream, gt=answer["version"] - 1)] == [
        "cause-1"
    ]


def test_a_purchase_ends_the_trial_and_returns_its_cost(client, organisation, read):
    response = client.post(
        f"{organisation}/purchases",
        json={"credits": 1_000, "payment_id": "pay-1", "order_id": "order-1", "gateway": "razorpay"},
    )
    assert response.status_code == 201
    answer = response.json()
    assert (answer["amount_minor"], answer["tax_minor"], answer["currency"]) == (2_000, 0, "USD")
    assert read(f"{organisation}/balance")["plan"] == "pay_as_you_go"
    newest = read(f"{organisation}/transactions", kind="addition")["transactions"][0]
    assert newest["type"] == "purchase"
    assert newest["details"]["payment_id"] == "pay-1"


def test_a_payment_adds_its_credits_once_with_any_key(client, organisation):
    body = {"credits": 1_000, "payment_id": "pay-2", "order_id": "order-2", "gateway": "razorpay"}
    first = client.post(f"{organisation}/purchases", json=body, headers={"Idempotency-Key": "one"})
    second = client.post(f"{organisation}/purchases", json=body, headers={"Idempotency-Key": "two"})
    assert first.status_code == 201
    assert second.status_code == 409
    assert problem_of(second) == "purchase-already-recorded"
    assert invalid_fields(second) == ["payment_id"]


def test_a_purchase_in_another_currency_is_refused(client, organisation):
    body = {"credits": 1, "payment_id": "p", "order_id": "o", "gateway": "g", "currency": "INR"}
    response = client.post(f"{organisation}/purchases", json=body)
    assert response.status_code == 409
    assert problem_of(response) == "currency-mismatch"
    assert invalid_fields(response) == ["currency"]


def test_the_largest_purchase_at_the_highest_price(client, organisation, read):
    client.put(f"{organisation}/price", json={"price_millionths": PRICE_MILLIONTHS_MAX})
    body = {"credits": CREDITS_MAX, "payment_id": "pay-max", "order_id": "o", "gateway": "g"}
    amount_minor = CREDITS_MAX * PRICE_MILLIONTHS_MAX // 10_000
    assert client.post(f"{organisation}/purchases", json=body).json()["amount_minor"] == amount_minor
    newest = read(f"{organisation}/transactions", kind="addition")["transactions"][0]
    assert newest["details"]["amount_minor"] == amount_minor


def test_a_refund_returns_part_of_a_charge_then_the_rest(client, organisation, ledger_api, read):
    charge = ledger_api.charge(organisation.rpartition("/")[2], "run-1", 50)
    part = client.post(f"{organisation}/refunds", json={"charge": charge, "credits": 20, "reason": "blurry"})
    rest = client.post(f"{organisation}/refunds", json={"charge": charge, "reason": "all blurry"})
    assert (part.status_code, part.json()["credits"], part.json()["balance"]) == (201, 20, 170)
    assert (rest.status_code, rest.json()["credits"], rest.json()["balance"]) == (201, 30, 200)
    more = client.post(f"{organisation}/refunds", json={"charge": charge, "credits": 1, "reason": "more"})
    assert more.status_code == 409
    assert problem_of(more) == "refund-exceeds-charge"
    assert invalid_fields(more) == ["credits"]
    newest = read(f"{organisation}/transactions", kind="addition")["transactions"][0]
    assert newest["details"] == {"charge": charge, "run_id": "run-1", "reason": "all blurry"}


@pytest.mark.parametrize("charge", [1, 2, 999, 2**63 - 1])
def test_a_refund_needs_a_charge(client, organisation, charge):
    response = client.post(f"{organisation}/refunds", json={"charge": charge, "reason": "x"})
    assert response.status_code == 422
    assert problem_of(response) == "charge-unknown"
    assert invalid_fields(response) == ["charge"]


def test_terms_change(client, organisation, read):
    price = client.put(f"{organisation}/price", json={"price_millionths": 1})
    plan = client.put(
        f"{organisation}/plan", json={"plan": "pro", "expires_at": "2031-01-01T05:30:00.5+05:30"}
    )
    zone = client.put(f"{organisation}/time-zone", json={"time_zone": "America/New_York"})
    assert [each.status_code for each in (price, plan, zone)] == [200, 200, 200]
    assert zone.json()["credits"] == 0
    balance = read(f"{organisation}/balance")
    assert balance["cost_per_credit"] == "0.000001"
    assert balance["plan"] == "pro"
    assert balance["time_zone"] == "America/New_York"
    assert read(f"{organisation}/subscription")["expires_at"] == "2031-01-01T00:00:00.500000Z"


WRITES = {
    "post grants": {"credits": 1, "kind": "admin", "reason": "x"},
    "post purchases": {"credits": 1, "payment_id": "p", "order_id": "o", "gateway": "g"},
    "post refunds": {"charge": 1, "reason": "x"},
    "put price": {"price_millionths": 1},
    "put plan": {"plan": "pro"},
    "put time-zone": {"time_zone": "UTC"},
}


@pytest.mark.parametrize("write", WRITES)
def test_writes_on_an_unknown_organisation_are_refused(client, write):
    method, name = write.split()
    response = client.request(method, f"/v1/organisations/nobody/{name}", json=WRITES[write])
    assert response.status_code == 404
    assert problem_of(response) == "organisation-unknown"
    assert response.json()["instance"] == f"/v1/organisations/nobody/{name}"


GRANT = WRITES["post grants"]
INVALID = [
    ("post grants", GRANT | {"credits": "5"}, "credits"),
    ("post grants", GRANT | {"credits": True}, "credits"),
    ("post grants", GRANT | {"credits": 5.0}, "credits"),
    ("post grants", GRANT | {"credits": 0}, "credits"),
    ("post grants", GRANT | {"credits": -1}, "credits"),
    ("post grants", GRANT | {"credits": CREDITS_MAX + 1}, "credits"),
    ("post grants", GRANT | {"credits": 2**63}, "credits"),
    ("post grants", GRANT | {"credits": 10**4000}, "credits"),
    ("post grants", GRANT | {"credits": None}, "credits"),
    ("post grants", GRANT | {"kind": "trial"}, "kind"),
    ("post grants", GRANT | {"reason": ""}, "reason"),
    ("post grants", GRANT | {"reason": "x" * 201}, "reason"),
    ("post grants", GRANT | {"reason": "a\0b"}, "reason"),
    ("post grants", GRANT | {"reason": "a\nb"}, "reason"),
    ("post grants", GRANT | {"reason": "zero\u200bwidth"}, "reason"),
    ("post grants", GRANT | {"reason": "\ud800"}, "reason"),
    ("post grants", GRANT | {"colour": "red"}, "colour"),
    ("post grants", GRANT | {"\ud800": "red"}, "body"),
    ("post grants", {"credits": 1, "kind": "admin"}, "reason"),
    ("post grants", [], "body"),
    ("post grants", None, "body"),
    ("post purchases", WRITES["post purchases"] | {"payment_id": "x" * 129}, "payment_id"),
    ("post purchases", WRITES["post purchases"] | {"order_id": "\0"}, "order_id"),
    ("post purchases", WRITES["post purchases"] | {"currency": "EUR"}, "currency"),
    ("post refunds", {"charge": 0, "reason": "x"}, "charge"),
    ("post refunds", {"charge": 2**63, "reason": "x"}, "charge"),
    ("put price", {"price_millionths": -1}, "price_millionths"),
    ("put price", {"price_millionths": PRICE_MILLIONTHS_MAX + 1}, "price_millionths"),
    ("put plan", {"plan": "gold"}, "plan"),
    ("put plan", {"plan": "pro", "expires_at": "2031-01-01T00:00:00"}, "expires_at"),
    ("put plan", {"plan": "pro", "expires_at": 1_900_000_000}, "expires_at"),
    ("put plan", {"plan": "pro", "expires_at": "9999-12-31T23:59:59Z"}, "expires_at"),
    ("put plan", {"plan": "pro", "expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at"),
    ("put time-zone", {"time_zone": "Mars/Olympus"}, "time_zone"),
    ("put time-zone", {"time_zone": "../../etc/passwd"}, "time_zone"),
    ("put time-zone", {"time_zone": "America"}, "time_zone"),
    ("put time-zone", {"time_zone": "\0"}, "time_zone"),
]


@pytest.mark.parametrize(("write", "body", "field"), INVALID)
def test_an_invalid_field_is_named(client, organisation, write, body, field):
    method, name = write.split()
    response = client.request(
        method,
        f"{organisation}/{name}",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 422, response.text
    assert problem_of(response) == "invalid-request"
    assert invalid_fields(response) == [field]
