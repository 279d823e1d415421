"""Holds and quotes over HTTP."""

from __future__ import annotations

import pytest

from tests.integration.api.ledger_api import invalid_fields, problem_of


def place(pipeline, organisation, **changes):
    body = {"run_id": "run-88", "usage_type": "photo_processing", "photos": 150, "mode": "all_or_nothing"}
    body = {name: value for name, value in (body | changes).items() if value is not None}
    return pipeline.post(f"{organisation}/holds", json=body)


@pytest.fixture
def pipeline(ledger_api):
    """A client with the pipeline's credentials."""
    with ledger_api.client(headers=ledger_api.bearer("pipeline-1", roles=["service"])) as client:
        yield client


def test_a_run_from_its_quote_to_its_settlement(pipeline, organisation, read):
    wanted = {"usage_type": "photo_processing", "photos": 150}
    quote = pipeline.post(f"{organisation}/quotes", json=wanted)
    assert quote.status_code == 200
    assert quote.json() == {
        "credits": 150,
        "draws": [{"lot": 2, "kind": "free", "credits": 150}],
        "overdraft": 0,
        "available": 200,
        "available_after": 50,
        "sufficient": True,
        "position": int(quote.headers["ledger-position"]),
    }

    placed = place(pipeline, organisation)
    assert placed.status_code == 201
    hold = placed.json()
    assert (hold["status"], hold["credits"], hold["remaining"]) == ("open", 150, 150)
    assert (hold["available"], hold["balance"]) == (50, 200)
    balance = read(f"{organisation}/balance", min_position=hold["position"])
    assert (balance["available"], balance["on_hold"], balance["balance"]) == (50, 150, 200)
    assert balance["processing"] == "allowed"

    settled = pipeline.post(f"{organisation}/holds/{hold['hold_id']}/settle", json={"photos": 120})
    assert settled.status_code == 200
    assert (settled.json()["charged"], settled.json()["released"], settled.json()["available"]) == (
        120,
        30,
        80,
    )

    one = read(f"{organisation}/holds/{hold['hold_id']}")["hold"]
    assert (one["status"], one["used"], one["remaining"], one["run_id"]) == ("settled", 120, 0, "run-88")
    assert read(f"{organisation}/holds", status="open")["holds"] == []
    assert [each["hold_id"] for each in read(f"{organisation}/holds")["holds"]] == [hold["hold_id"]]
    cards = read(f"{organisation}/usage-summary")["months"]
    assert (cards[0]["credits"], cards[0]["photos"], cards[0]["runs"]) == (120, 120, 1)


def test_a_hold_needs_available_credits(pipeline, organisation):
    refused = place(pipeline, organisation, photos=201)
    assert problem_of(refused) == "insufficient-credits"
    assert refused.status_code == 402
    assert "200 are available" in refused.json()["detail"]
    assert refused.json()["available"] == 200
    assert place(pipeline, organisation, photos=201, mode="up_to").json()["credits"] == 200
    assert problem_of(place(pipeline, organisation, run_id="run-89", mode="up_to")) == "insufficient-credits"


def test_one_idempotency_key_places_one_hold(pipeline, organisation):
    first, second = (
        place(pipeline, organisation, run_id=run_id, photos=10).json()["hold_id"] for run_id in ("a", "b")
    )
    key = {"Idempotency-Key": "settle-1"}
    for hold_id in (first, second, first):
        answer = pipeline.post(f"{organisation}/holds/{hold_id}/settle", json={"photos": 10}, headers=key)
        assert (answer.status_code, answer.json()["hold_id"]) == (200, hold_id)
    assert answer.headers["idempotent-replayed"] == "true"


def test_a_hold_is_closed_once(pipeline, organisation, read):
    hold_id = place(pipeline, organisation).json()["hold_id"]
    assert problem_of(place(pipeline, organisation, photos=151)) == "hold-conflict"
    released = pipeline.post(f"{organisation}/holds/{hold_id}/release", json={})
    assert (released.json()["status"], released.json()["released"]) == ("released", 150)
    assert problem_of(pipeline.post(f"{organisation}/holds/{hold_id}/release", json={})) == "hold-closed"
    assert problem_of(place(pipeline, organisation)) == "hold-closed"
    assert problem_of(pipeline.post(f"{organisation}/holds/hold-99/release", json={})) == "hold-unknown"
    assert [each["status"] for each in read(f"{organisation}/holds")["holds"]] == ["released"]
    assert problem_of(pipeline.get(f"{organisation}/holds/hold-99")) == "hold-unknown"


def test_a_settlement_needs_the_usage_type(pipeline, organisation):
    hold_id = place(pipeline, organisation, credits=20, usage_type=None, photos=None).json()["hold_id"]
    address = f"{organisation}/holds/{hold_id}/settle"
    assert invalid_fields(pipeline.post(address, json={"photos": 5})) == ["usage_type"]
    named = {"photos": 5, "usage_type": "ai_image_rotation"}
    assert pipeline.post(address, json=named).json()["charged"] == 5


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"credits": 5}, "credits"),
        ({"usage_type": None}, "usage_type"),
        ({"photos": None}, "photos"),
        ({"usage_type": "ai_image_rotation", "photos": 0}, "photos"),
        ({"usage_type": "ai_image_rotation", "photos": 100_001}, "photos"),
        ({"usage_type": "nonsense"}, "usage_type"),
        ({"mode": "some"}, "mode"),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"expires_in_s": 86_401}, "expires_in_s"),
        ({"run_id": ""}, "run_id"),
        ({"event": {"id": 1, "name": "a\nb"}}, "event.name"),
    ],
)
def test_invalid_fields_are_named(pipeline, organisation, changes, field):
    assert invalid_fields(place(pipeline, organisation, **changes)) == [field]


def test_an_unknown_organisation(pipeline):
    assert problem_of(place(pipeline, "/v1/organisations/nobody")) == "organisation-unknown"
    quote = pipeline.post("/v1/organisations/nobody/quotes", json={"credits": 1})
    assert problem_of(quote) == "organisation-unknown"


def test_a_threshold(client, organisation):
    answer = client.put(f"{organisation}/low-balance-threshold", json={"credits": 50})
    assert (answer.status_code, answer.json()["available"]) == (200, 200)
