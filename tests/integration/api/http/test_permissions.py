"""Permissions: every operation of the document, for every kind of caller and of organisation.

The table below is a second, independent statement of the permissions. An operation that is not in it fails.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import APIRouter

from api import app as apps
from api.http.permissions import RULES, RuleMissing
from api.http.routes import StrictRoute
from api.http.schema_text import example_of
from domain.identity.principals import Credentials, IdentityProviderUnavailable
from tests.integration.api.ledger_api import LedgerApi, problem_of

MAY_CALL = {
    "getBalance": "admin member key service staff auditor",
    "getUsageSummary": "admin member key staff auditor",
    "getDailyUsage": "admin member key staff auditor",
    "listTransactions": "admin member key staff auditor",
    "listCharges": "admin member key staff auditor",
    "listPhotoEvents": "admin member key staff auditor",
    "getSubscription": "admin member key staff auditor",
    "openOrganisation": "staff",
    "grantCredits": "staff",
    "recordPurchase": "staff",
    "refundCharge": "staff",
    "quotePurchase": "admin member key staff auditor",
    "beginPayment": "admin staff",
    "beginCustomPayment": "staff",
    "checkOutPayment": "admin staff",
    "recheckPayment": "admin staff",
    "abandonPayment": "admin staff",
    "refundPayment": "staff",
    "settlePaymentFlag": "staff",
    "listPaymentFlags": "staff auditor",
    "listPayments": "admin member key staff auditor",
    "getPayment": "admin member key staff auditor",
    "getAutoTopUp": "admin member key staff auditor",
    "changeAutoTopUp": "admin staff",
    "switchOffAutoTopUp": "admin staff",
    "hearGateway": "nobody admin member key service staff auditor",
    "changePrice": "staff",
    "changePlan": "staff",
    "changeTimeZone": "staff",
    "setLowBalanceThreshold": "admin staff",
    "placeHold": "service",
    "settleHold": "service",
    "releaseHold": "service",
    "listHolds": "admin member key service staff auditor",
    "getHold": "admin member key service staff auditor",
    "quote": "admin member key service staff auditor",
    "listApiKeys": "admin staff auditor",
    "issueApiKey": "admin staff",
    "revokeApiKey": "admin staff",
    "putPerson": "staff",
    "getPerson": "staff",
    "erasePerson": "staff",
    "addWebhookEndpoint": "admin staff",
    "listWebhookEndpoints": "admin staff auditor",
    "removeWebhookEndpoint": "admin staff",
    "rotateWebhookSecret": "admin staff",
    "enableWebhookEndpoint": "admin staff",
    "testWebhookEndpoint": "admin staff",
    "listWebhookDeliveries": "admin staff auditor",
    "getBillingDetails": "admin member key staff auditor",
    "putBillingDetails": "admin staff",
    "eraseBillingDetails": "admin staff",
    "listInvoices": "admin member key staff auditor",
    "getInvoice": "admin member key staff auditor",
    "downloadInvoice": "admin member key staff auditor",
    "issueInvoice": "admin member staff",
    "getHealth": "nobody admin member key service staff auditor",
    "getReadiness": "nobody admin member key service staff auditor",
    "getMetrics": "nobody admin member key service staff auditor",
    "getProblem": "nobody admin member key service staff auditor",
}
ABOUT_NO_ORGANISATION = ("putPerson", "getPerson", "erasePerson", "listPaymentFlags")
OF_ORGANISATIONS = ("admin", "member", "key")
EVERYBODY = ("nobody", *OF_ORGANISATIONS, "service", "staff", "auditor")
OWN, FOREIGN, UNKNOWN = "org-own", "org-foreign", "org-unknown"
REFUSALS = {"credentials-missing", "credentials-refused", "role-insufficient", "organisation-unknown"}


class Callers:
    """All kinds of callers, and the operations of the document."""

    def __init__(self, ledger_api: LedgerApi) -> None:
        self._client = ledger_api.client(headers={})
        self.document = self._client.get("/openapi.json").json()
        for organisation_id in (OWN, FOREIGN):
            body = {"time_zone": "UTC", "currency": "INR"}
            self._client.put(
                f"/v1/organisations/{organisation_id}", json=body, headers=ledger_api.staff
            ).raise_for_status()
            ledger_api.charge(organisation_id, "run-88", 5)
        ledger_api.catch_up()
        issued = self._client.post(
            f"/v1/organisations/{OWN}/api-keys", json={"name": "x"}, headers=ledger_api.staff
        )
        self.headers = {
            "nobody": {},
            "admin": ledger_api.bearer("u-admin", organisations={OWN: "admin"}),
            "member": ledger_api.bearer("u-member", organisations={OWN: "member"}),
            "key": {"X-API-Key": issued.json()["key"]},
            **{role: ledger_api.bearer(role, roles=[role]) for role in ("service", "staff", "auditor")},
        }
        self.operations = {
            about["operationId"]: (method, path, about)
            for path, methods in self.document["paths"].items()
            for method, about in methods.items()
        }

    def call(self, who: str, operation_id: str, organisation_id: str, **extra: str) -> Any:
        """Send the example request of the document."""
        method, path, about = self.operations[operation_id]
        query = dict(extra)
        for each in about.get("parameters", ()):
            value = str(example_of(self.document, each["schema"]))
            if each["name"] == "organisation_id":
                value = organisation_id
            if each["in"] == "path":
                path = path.replace(f"{{{each['name']}}}", quote(value, safe=""))
            elif each["in"] == "query" and each.get("required"):
                query[each["name"]] = value
        content, headers = None, {**self.headers[who], "X-Request-Id": "matrix"}
        if "requestBody" in about:
            schema = about["requestBody"]["content"]["application/json"]["schema"]
            content = json.dumps(example_of(self.document, schema))
            headers["Content-Type"] = "application/json"
        return self._client.request(method, path, params=query, content=content, headers=headers)


@pytest.fixture(scope="session")
def callers(ledger_api: LedgerApi) -> Callers:
    return Callers(ledger_api)


def refusal_of(response: Any) -> str | None:
    """Return why a caller was refused, or None if the caller was permitted."""
    if response.status_code < 400 or problem_of(response) not in REFUSALS:
        return None
    return problem_of(response)


def expected(who: str, operation_id: str, organisation_id: str) -> str | None:
    allowed = who in MAY_CALL[operation_id].split()
    if "nobody" in MAY_CALL[operation_id]:
        return None
    if who == "nobody":
        return "credentials-missing"
    if not allowed and operation_id in ABOUT_NO_ORGANISATION:
        return "role-insufficient"
    if who in OF_ORGANISATIONS and organisation_id != OWN:
        return "organisation-unknown"
    if not allowed:
        return "role-insufficient"
    opens = operation_id == "openOrganisation" or operation_id in ABOUT_NO_ORGANISATION
    return "organisation-unknown" if organisation_id == UNKNOWN and not opens else None


def test_every_operation_documents_its_callers(callers: Callers) -> None:
    assert callers.operations.keys() == MAY_CALL.keys(), "list its callers here too"


@pytest.mark.parametrize("who", EVERYBODY)
def test_callers_are_permitted_exactly_as_the_table_says(
    callers: Callers, who: str, subtests: pytest.Subtests
) -> None:
    for operation_id in callers.operations:
        for organisation_id in (OWN, FOREIGN, UNKNOWN):
            with subtests.test(operation_id, organisation=organisation_id):
                opens = (who, operation_id, organisation_id) == ("staff", "openOrganisation", UNKNOWN)
                asked = (
                    "org-opened-by-staff" if opens else organisation_id
                )  # the unknown organisation stays unknown
                response = callers.call(who, operation_id, asked)
                assert refusal_of(response) == expected(who, operation_id, organisation_id), response.text
                status = {None: response.status_code, "role-insufficient": 403, "organisation-unknown": 404}
                assert response.status_code == status.get(refusal_of(response), 401)
                assert response.status_code < 500


@pytest.mark.parametrize("who", OF_ORGANISATIONS)
def test_a_caller_from_another_organisation_gets_404(
    callers: Callers, who: str, subtests: pytest.Subtests
) -> None:
    for operation_id, (_, path, _) in callers.operations.items():
        if "{organisation_id}" not in path:
            continue
        for extra in ({}, {"min_position": "9000000000"}, {"nonsense": "1"}):
            with subtests.test(operation_id, extra=extra):
                answers = [callers.call(who, operation_id, each, **extra) for each in (FOREIGN, UNKNOWN)]
                foreign, unknown = (
                    (each.status_code, each.text.replace(name, "ORG"), sorted(each.headers))
                    for each, name in zip(answers, (FOREIGN, UNKNOWN), strict=True)
                )
                assert foreign == unknown
                assert foreign[0] == 404


def test_an_unknown_organisation_has_the_same_response_for_its_members(callers: Callers) -> None:
    """A member of an organisation that is not open gets the same response as others."""
    mine, theirs = (
        callers.call("auditor", "getBalance", UNKNOWN),
        callers.call("admin", "getBalance", UNKNOWN),
    )
    assert mine.json() == theirs.json()


def test_rules_and_routes_match(callers: Callers, ledger_api: LedgerApi) -> None:
    routes = {
        f"{method} {route.path_format}"
        for router in apps.ROUTERS
        for route in router.routes
        for method in route.methods
    }
    assert routes == RULES.keys()


def test_a_route_without_a_rule_cannot_be_made() -> None:
    router = APIRouter(route_class=StrictRoute)
    with pytest.raises(RuleMissing, match="GET /v1/secrets"):
        router.get("/v1/secrets")(lambda: None)


def test_an_app_with_an_unprotected_route_does_not_start(
    ledger_api: LedgerApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = APIRouter()
    router.get("/v1/secrets")(lambda: None)
    monkeypatch.setattr(apps, "ROUTERS", (router,))
    with pytest.raises(RuleMissing):
        ledger_api.client()


def test_the_document_describes_the_credentials(callers: Callers) -> None:
    schemes = callers.document["components"]["securitySchemes"]
    assert schemes["token"]["scheme"] == "bearer"
    assert (schemes["key"]["in"], schemes["key"]["name"]) == ("header", "X-API-Key")
    for operation_id, (_, _, about) in callers.operations.items():
        may_call = MAY_CALL[operation_id].split()
        kinds = [name for requirement in about["security"] for name in requirement]
        assert kinds == ([] if "nobody" in may_call else ["token"] + ["key"] * ("key" in may_call))
        assert ("401" in about["responses"]) is ("nobody" not in may_call)


def test_head_needs_the_permission_of_get(callers: Callers, ledger_api: LedgerApi) -> None:
    with ledger_api.client(headers={}) as client:
        path = f"/v1/organisations/{OWN}/balance"
        assert client.head(path).status_code == 401
        assert client.head(path, headers=callers.headers["member"]).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Basic dTpw")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer x"), ("Authorization", "Bearer y")],
        [("Authorization", "")],
        [("X-API-Key", "a"), ("X-API-Key", "b")],
        [("Authorization", "Bearer x"), ("X-API-Key", "a")],
    ],
)
def test_invalid_credentials(ledger_api: LedgerApi, headers: Any) -> None:
    with ledger_api.client(headers={}) as client:
        response = client.get(f"/v1/organisations/{OWN}/balance", headers=headers)
    assert response.status_code == 401
    assert problem_of(response) == "credentials-refused"
    assert response.headers["www-authenticate"] == 'Bearer realm="creditledger", error="invalid_token"'


def test_the_scheme_is_case_insensitive(callers: Callers, ledger_api: LedgerApi) -> None:
    token = callers.headers["member"]["Authorization"].removeprefix("Bearer ")
    with ledger_api.client(headers={"Authorization": f"bearer  {token}"}) as client:
        assert client.get(f"/v1/organisations/{OWN}/balance").status_code == 200


def test_a_request_without_credentials_gets_the_expected_scheme(ledger_api: LedgerApi) -> None:
    with ledger_api.client(headers={}) as client:
        response = client.get(f"/v1/organisations/{OWN}/balance")
    assert response.headers["www-authenticate"] == 'Bearer realm="creditledger"'


def test_an_unavailable_issuer_is_not_a_refusal(ledger_api: LedgerApi) -> None:
    def gone(_: Credentials) -> Any:
        raise IdentityProviderUnavailable("the token issuer's keys cannot be fetched")

    with ledger_api.client(identify=gone) as client:
        response = client.get(f"/v1/organisations/{OWN}/balance")
        assert client.get("/healthz").status_code == 200
    assert response.status_code == 503
    assert problem_of(response) == "identities-unavailable"
    assert response.headers["retry-after"] == "5"
