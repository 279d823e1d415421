"""Writes with an Idempotency-Key count once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.api.ledger_api import invalid_fields, problem_of

GRANT = {"credits": 5, "kind": "admin", "reason": "x"}


def test_a_repeat_gets_the_first_response(client, organisation):
    headers = {"Idempotency-Key": "key-1"}
    first = client.post(f"{organisation}/grants", json=GRANT, headers=headers)
    client.post(f"{organisation}/grants", json=GRANT)
    reordered = dict(reversed(GRANT.items()))
    again = client.post(f"{organisation}/grants", json=reordered, headers=headers)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["ledger-position"] == first.headers["ledger-position"]


def test_opening_twice_with_one_key_returns_the_first_response(client):
    body = {"time_zone": "UTC", "currency": "USD"}
    headers = {"Idempotency-Key": "open"}
    first = client.put("/v1/organisations/org-twice", json=body, headers=headers)
    again = client.put("/v1/organisations/org-twice", json=body, headers=headers)
    other_key = client.put("/v1/organisations/org-twice", json=body, headers={"Idempotency-Key": "other"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert problem_of(other_key) == "organisation-already-open"


@pytest.mark.parametrize(("first", "again"), [({}, {"currency": None}), ({"currency": None}, {})])
def test_a_null_equals_a_missing_field(client, organisation, first, again):
    purchase = {"credits": 5, "payment_id": f"{organisation}-{first}", "order_id": "o", "gateway": "razorpay"}
    headers = {"Idempotency-Key": "key-1"}
    sent = [
        client.post(f"{organisation}/purchases", json=purchase | extra, headers=headers)
        for extra in (first, again)
    ]
    assert [each.status_code for each in sent] == [201, 201]
    assert sent[1].headers["idempotent-replayed"] == "true"


def test_another_body_with_the_same_key_is_refused(client, organisation):
    headers = {"Idempotency-Key": "key-1"}
    client.post(f"{organisation}/grants", json=GRANT, headers=headers)
    other = client.post(f"{organisation}/grants", json=GRANT | {"credits": 6}, headers=headers)
    assert other.status_code == 422
    assert problem_of(other) == "idempotency-conflict"
    assert invalid_fields(other) == ["Idempotency-Key"]


def test_a_key_is_scoped_to_its_path(client, organisation, read):
    headers = {"Idempotency-Key": "key-1"}
    other = "/v1/organisations/org-other-keys"
    client.put(other, json={"time_zone": "UTC", "currency": "USD"}, headers=headers)
    assert client.post(f"{organisation}/grants", json=GRANT, headers=headers).json()["balance"] == 205
    assert client.post(f"{other}/grants", json=GRANT, headers=headers).json()["balance"] == 205
    assert client.put(f"{other}/time-zone", json={"time_zone": "UTC"}, headers=headers).status_code == 200


def test_a_refused_request_does_not_use_its_key(client, organisation):
    headers = {"Idempotency-Key": "key-1"}
    path = organisation.replace("org-", "later-")
    assert client.post(f"{path}/grants", json=GRANT, headers=headers).status_code == 404
    client.put(path, json={"time_zone": "UTC", "currency": "USD"})
    assert client.post(f"{path}/grants", json=GRANT | {"credits": 6}, headers=headers).status_code == 201


def test_eight_identical_requests_at_once_make_one_grant(client, organisation, ledger_api):
    def grant(_: int):
        return client.post(f"{organisation}/grants", json=GRANT, headers={"Idempotency-Key": "at-once"})

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(grant, range(8)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    ledger = ledger_api.services.ledger
    assert ledger.organisation(organisation.rpartition("/")[2]).balance == 205


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tbed", b"caf\xe9"])
def test_a_key_out_of_bounds_is_refused(client, organisation, key):
    response = client.post(f"{organisation}/grants", json=GRANT, headers={"Idempotency-Key": key})
    assert problem_of(response) == "invalid-request"
    assert invalid_fields(response) == ["Idempotency-Key"]


def test_two_keys_are_refused(client, organisation):
    headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    response = client.post(f"{organisation}/grants", json=GRANT, headers=headers)
    assert invalid_fields(response) == ["Idempotency-Key"]
