"""Rate limits, and no credentials in logs or responses."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest

from api.http.rate_limits import rate_limits
from tests.integration.api.ledger_api import LedgerApi, problem_of


def test_a_caller_has_a_quota(ledger_api: LedgerApi, organisation: str) -> None:
    with ledger_api.client(limits=rate_limits(2, 100)) as client:
        answers = [client.get(f"{organisation}/api-keys") for _ in range(3)]
        other = ledger_api.bearer("somebody-else", roles=["auditor"])
        assert client.get(f"{organisation}/api-keys", headers=other).status_code == 200
        assert client.get("/healthz").status_code == 200
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"principal";q=2;w=60, "organisation";q=100;w=60'
    assert answers[0].headers["ratelimit"].startswith('"principal";r=1;t=30, "organisation";r=99;')
    assert problem_of(answers[2]) == "too-many-requests"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    assert answers[2].headers["ratelimit"].startswith('"principal";r=0;')


def test_all_callers_share_the_quota_of_an_organisation(ledger_api: LedgerApi, organisation: str) -> None:
    with ledger_api.client(limits=rate_limits(100, 2)) as client:
        callers = [ledger_api.bearer(f"auditor-{number}", roles=["auditor"]) for number in range(3)]
        answers = [client.get(f"{organisation}/api-keys", headers=each) for each in callers]
    assert [each.status_code for each in answers] == [200, 200, 429]


def test_requests_without_an_organisation_count_for_the_caller(ledger_api: LedgerApi) -> None:
    with ledger_api.client(limits=rate_limits(2, 1)) as client:
        answers = [client.get("/v1/people/u-nobody-knows") for _ in range(3)]
    assert [each.status_code for each in answers] == [404, 404, 429]
    assert answers[0].headers["ratelimit-policy"] == '"principal";q=2;w=60'


def test_refused_callers_do_not_use_an_organisations_quota(ledger_api: LedgerApi, organisation: str) -> None:
    stranger = ledger_api.bearer("stranger", organisations={"org-of-strangers": "admin"})
    with ledger_api.client(limits=rate_limits(100, 1)) as client:
        for _ in range(5):
            refused = client.get(f"{organisation}/api-keys", headers=stranger)
            assert refused.status_code == 404
            assert "organisation" not in refused.headers["ratelimit"]
        assert client.get(f"{organisation}/api-keys").status_code == 200


def test_no_log_and_no_response_contains_a_token_or_a_key(
    ledger_api: LedgerApi, organisation: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def broken_clock() -> Any:
        raise RuntimeError("a bug")

    def no_database() -> Any:
        raise psycopg.OperationalError("connection refused")

    grant = {"credits": 1, "kind": "admin", "reason": "x"}
    with ledger_api.client() as client:
        key = client.post(f"{organisation}/api-keys", json={"name": "x"}).json()["key"]
    token = ledger_api.issuer.token("staff-9", roles=["staff"])
    shown = [
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"Bearer {token[:-4]}AAAA"},
        {"Authorization": f"Basic {token}"},
        {"X-API-Key": key},
        {"X-API-Key": f"{key[:-4]}AAAA"},
        {"X-API-Key": key, "Authorization": f"Bearer {token}"},
    ]
    answers = []
    for changes in ({}, {"clock": broken_clock}, {"read_connection": no_database}):
        with ledger_api.client(headers={}, **changes) as client:
            for headers in shown:
                answers.append(client.get(f"{organisation}/balance", headers=headers))
                answers.append(client.post(f"{organisation}/grants", json=grant, headers=headers))
    assert {each.status_code for each in answers} >= {201, 401, 403, 500, 503}
    assert any("Traceback" in (record.exc_text or "") for record in caplog.records)
    output = caplog.text + "".join(f"{each.text}{each.headers}" for each in answers)
    for secret in (token.rpartition(".")[2][:20], token.split(".")[1][:40], key.rpartition("_")[2][:20], key):
        assert secret not in output
