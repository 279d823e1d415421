"""Names of people: stored outside the log, shown next to ids, and erased without a change of the log."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest

from tests.histories import history
from tests.integration.api.ledger_api import STAFF, LedgerApi, invalid_fields, problem_of

ASHA = {"name": "Asha Rao", "email": "asha@example.com"}


def path_of(user_id: str) -> str:
    return f"/v1/people/{user_id}"


@pytest.fixture
def user_id(organisation: str) -> str:
    """A user id that no other test uses."""
    return f"u-of-{organisation.rpartition('/')[2]}"


@pytest.fixture
def asha(client: Any, user_id: str) -> str:
    assert client.put(path_of(user_id), json=ASHA).status_code == 200
    return user_id


def test_a_person_is_stored_and_updated(client: Any, asha: str) -> None:
    person = client.get(path_of(asha)).json()
    assert {name: person[name] for name in ("user_id", "erased_at", *ASHA)} == {
        "user_id": asha,
        "erased_at": None,
        **ASHA,
    }
    assert client.put(path_of(asha), json={"name": "Asha Rao-Mehta"}).json()["email"] is None
    assert client.get(path_of(asha)).json()["name"] == "Asha Rao-Mehta"


def test_an_unknown_person(client: Any, user_id: str) -> None:
    assert problem_of(client.get(path_of(user_id))) == "person-unknown"


def test_an_erased_person_is_gone_for_good(client: Any, asha: str, ledger_api: LedgerApi) -> None:
    assert client.delete(path_of(asha)).status_code == 204
    erased = client.get(path_of(asha)).json()
    assert (erased["name"], erased["email"]) == (None, None)
    assert client.delete(path_of(asha)).status_code == 204
    assert client.get(path_of(asha)).json() == erased
    refused = client.put(path_of(asha), json=ASHA)
    assert refused.status_code == 409
    assert problem_of(refused) == "person-erased"
    with psycopg.connect(ledger_api.conninfo) as connection:
        rows = connection.execute(
            "SELECT name, email FROM ledger.people WHERE user_id = %s", [asha]
        ).fetchall()
    assert rows == [(None, None)]


def test_an_unknown_person_can_be_erased(client: Any, user_id: str) -> None:
    assert client.delete(path_of(user_id)).status_code == 204
    assert problem_of(client.put(path_of(user_id), json=ASHA)) == "person-erased"


def test_actors_are_shown_by_name(
    client: Any, asha: str, organisation: str, read: Any, ledger_api: LedgerApi
) -> None:
    organisation_id = organisation.rpartition("/")[2]
    staff = ledger_api.bearer(asha, roles=["staff"])
    grant = {"credits": 5, "kind": "admin", "reason": "x"}
    client.post(f"{organisation}/grants", json=grant, headers=staff).raise_for_status()
    client.post(f"{organisation}/api-keys", json={"name": "x"}, headers=staff).raise_for_status()
    hook = client.post(
        f"{organisation}/webhook-endpoints", json={"url": "https://hooks.example/"}, headers=staff
    )
    assert hook.json()["added_by_name"] == "Asha Rao"
    ledger_api.charge(organisation_id, "run-88", 5, user="u-nameless")

    def shown() -> list[tuple[str, str]]:
        page = read(f"{organisation}/transactions")["transactions"]
        return sorted({(each["actor"], each["actor_name"]) for each in page})

    before = history(ledger_api.conninfo, organisation_id)
    assert shown() == sorted([(asha, "Asha Rao"), (STAFF, STAFF), ("u-nameless", "u-nameless")])
    charges = read(f"{organisation}/transactions/run-88/charges")["charges"]
    assert [each["actor_name"] for each in charges] == ["u-nameless"]

    client.delete(path_of(asha)).raise_for_status()
    assert (asha, "erased person") in shown()
    (key,) = client.get(f"{organisation}/api-keys").json()["api_keys"]
    assert (key["created_by"], key["created_by_name"]) == (asha, "erased person")
    assert history(ledger_api.conninfo, organisation_id) == before


def test_the_system_has_a_name(organisation: str, read: Any, client: Any, ledger_api: LedgerApi) -> None:
    organisation_id = organisation.rpartition("/")[2]
    ledger_api.charge(organisation_id, "run-of-nobody", 5, user=None)
    (row,) = read(f"{organisation}/transactions", kind="usage")["transactions"]
    assert (row["actor"], row["actor_name"]) == (None, "System")


def test_a_member_sees_only_names_in_own_rows(
    client: Any, asha: str, organisation: str, ledger_api: LedgerApi
) -> None:
    organisation_id = organisation.rpartition("/")[2]
    grant = {"credits": 5, "kind": "admin", "reason": "x"}
    staff = ledger_api.bearer(asha, roles=["staff"])
    client.post(f"{organisation}/grants", json=grant, headers=staff).raise_for_status()
    ledger_api.catch_up()
    with ledger_api.client(
        headers=ledger_api.bearer("u-member", organisations={organisation_id: "member"})
    ) as member:
        assert "Asha Rao" in member.get(f"{organisation}/transactions").text
        assert problem_of(member.get(path_of(asha))) == "role-insufficient"
    stranger = ledger_api.bearer("u-stranger", organisations={"org-elsewhere": "admin"})
    with ledger_api.client(headers=stranger) as elsewhere:
        assert "Asha" not in elsewhere.get(f"{organisation}/transactions").text
        assert problem_of(elsewhere.get(path_of(asha))) == "role-insufficient"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": None}, "name"),
        ({"email": "nowhere"}, "email"),
        ({"email": "a b@example.com"}, "email"),
        ({"email": "a@" + "b" * 253}, "email"),
        ({"phone": "1"}, "phone"),
    ],
)
def test_invalid_fields_are_named(client: Any, user_id: str, changes: dict[str, Any], field: str) -> None:
    response = client.put(path_of(user_id), json={**ASHA, **changes})
    assert response.status_code == 422
    assert invalid_fields(response) == [field]


def test_no_log_contains_a_name(
    client: Any, asha: str, ledger_api: LedgerApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client.put(path_of(asha), json=ASHA)
    client.delete(path_of(asha))

    def broken_clock() -> Any:
        raise RuntimeError("a bug")

    with ledger_api.client(clock=broken_clock) as broken:
        assert broken.put(path_of(asha), json=ASHA).status_code == 500
    assert "a bug" in caplog.text
    assert "Asha" not in caplog.text
    assert "asha@" not in caplog.text
