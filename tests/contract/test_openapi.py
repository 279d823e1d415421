"""The OpenAPI document is complete and agrees with the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from api.app import create_app
from api.credits import auto_top_up, hold_schemas, write_schemas
from api.http.dependencies import Services
from api.http.page_services import PageServices
from api.http.problem_types import PROBLEM_TYPES
from api.http.problems import PROBLEM_MEDIA_TYPE
from api.http.rate_limits import rate_limits
from api.http.schema_text import example_of
from api.identity import api_keys as identity_api_keys
from api.identity import people as identity_people
from api.invoicing import billing_details
from api.payments import flag_schemas
from api.payments import schemas as payment_schemas
from api.webhooks import endpoints as webhook_endpoints
from infra.identity.sessions import PostgresSessions

# No operation documents the problems that occur before routing.
BEFORE_ROUTING = {"method-not-allowed"}
# Pages are not operations.
OF_PAGES = {"form-expired", "photo-event-unknown"}

BODIES = {
    "openOrganisation": write_schemas.OpenOrganisation,
    "grantCredits": write_schemas.Grant,
    "recordPurchase": write_schemas.Purchase,
    "refundCharge": write_schemas.Refund,
    "quotePurchase": payment_schemas.PurchaseQuoteRequest,
    "beginPayment": payment_schemas.BeginPayment,
    "beginCustomPayment": payment_schemas.BeginCustomPayment,
    "checkOutPayment": payment_schemas.EmptyBody,
    "recheckPayment": payment_schemas.EmptyBody,
    "abandonPayment": payment_schemas.EmptyBody,
    "refundPayment": payment_schemas.RefundPayment,
    "settlePaymentFlag": flag_schemas.SettleFlag,
    "changeAutoTopUp": auto_top_up.AutoTopUpTerms,
    "changePrice": write_schemas.PriceChange,
    "changePlan": write_schemas.PlanChange,
    "changeTimeZone": write_schemas.TimeZoneChange,
    "setLowBalanceThreshold": write_schemas.LowBalanceThreshold,
    "placeHold": hold_schemas.PlaceHold,
    "settleHold": hold_schemas.SettleHold,
    "releaseHold": hold_schemas.ReleaseHold,
    "quote": hold_schemas.WantedUsage,
    "issueApiKey": identity_api_keys.NewKey,
    "putPerson": identity_people.PersonDetails,
    "addWebhookEndpoint": webhook_endpoints.NewEndpoint,
    "putBillingDetails": billing_details.BillingDetails,
}


def _nothing(*_: Any) -> Any:
    raise AssertionError("the description of the API must not read anything")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    ledger: Any = None
    store: Any = None
    services = Services(
        ledger=ledger,
        commands=store,
        holds=store,
        read_connection=_nothing,
        identify=_nothing,
        api_keys=store,
        webhooks=store,
        people=store,
        invoicing=store,
        print_invoice=_nothing,
        payments=store,
        payment_tracking=store,
        refunds=store,
        top_ups=store,
        limits=rate_limits(1, 1),
        clock=lambda: datetime.now(UTC),
        new_id=lambda: "request-1",
        allowed_hosts=frozenset(),
        registry=CollectorRegistry(),
        pages=PageServices(PostgresSessions(_nothing, _nothing)),
        readiness=_nothing,
    )
    return create_app(services).openapi()


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_all_routes_are_listed(document):
    organisation = "/v1/organisations/{organisation_id}"
    assert {(method, path) for method, path, _ in _operations(document)} == {
        ("put", organisation),
        ("get", f"{organisation}/balance"),
        ("get", f"{organisation}/usage-summary"),
        ("get", f"{organisation}/daily-usage"),
        ("get", f"{organisation}/transactions"),
        ("get", f"{organisation}/transactions/{{run_id}}/charges"),
        ("get", f"{organisation}/events"),
        ("get", f"{organisation}/subscription"),
        ("post", f"{organisation}/grants"),
        ("post", f"{organisation}/purchases"),
        ("post", f"{organisation}/refunds"),
        ("post", f"{organisation}/purchase-quotes"),
        ("post", f"{organisation}/payments"),
        ("post", f"{organisation}/custom-payments"),
        ("post", f"{organisation}/payments/{{payment_id}}/checkout"),
        ("post", f"{organisation}/payments/{{payment_id}}/recheck"),
        ("post", f"{organisation}/payments/{{payment_id}}/abandon"),
        ("post", f"{organisation}/payments/{{payment_id}}/refunds"),
        ("get", f"{organisation}/payments"),
        ("get", f"{organisation}/payments/{{payment_id}}"),
        ("get", f"{organisation}/auto-top-up"),
        ("put", f"{organisation}/auto-top-up"),
        ("delete", f"{organisation}/auto-top-up"),
        ("post", "/v1/gateways/{gateway}/webhooks"),
        ("put", f"{organisation}/price"),
        ("put", f"{organisation}/plan"),
        ("put", f"{organisation}/time-zone"),
        ("put", f"{organisation}/low-balance-threshold"),
        ("post", f"{organisation}/holds"),
        ("get", f"{organisation}/holds"),
        ("get", f"{organisation}/holds/{{hold_id}}"),
        ("post", f"{organisation}/holds/{{hold_id}}/settle"),
        ("post", f"{organisation}/holds/{{hold_id}}/release"),
        ("post", f"{organisation}/quotes"),
        ("post", f"{organisation}/api-keys"),
        ("get", f"{organisation}/api-keys"),
        ("delete", f"{organisation}/api-keys/{{key_id}}"),
        ("put", "/v1/people/{user_id}"),
        ("get", "/v1/people/{user_id}"),
        ("delete", "/v1/people/{user_id}"),
        ("post", f"{organisation}/webhook-endpoints"),
        ("get", f"{organisation}/webhook-endpoints"),
        ("delete", f"{organisation}/webhook-endpoints/{{endpoint_id}}"),
        ("post", f"{organisation}/webhook-endpoints/{{endpoint_id}}/secret"),
        ("post", f"{organisation}/webhook-endpoints/{{endpoint_id}}/enable"),
        ("post", f"{organisation}/webhook-endpoints/{{endpoint_id}}/test"),
        ("get", f"{organisation}/webhook-endpoints/{{endpoint_id}}/deliveries"),
        ("get", f"{organisation}/billing-details"),
        ("put", f"{organisation}/billing-details"),
        ("delete", f"{organisation}/billing-details"),
        ("get", f"{organisation}/invoices"),
        ("get", f"{organisation}/invoices/{{invoice_id}}"),
        ("get", f"{organisation}/invoices/{{invoice_id}}.pdf"),
        ("post", f"{organisation}/payments/{{payment_id}}/invoice"),
        ("post", f"{organisation}/payments/{{payment_id}}/flags/settle"),
        ("get", "/v1/payment-flags"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
        ("get", "/problems/{name}"),
    }


def test_every_operation_is_described(document):
    ids = [operation["operationId"] for _, _, operation in _operations(document)]
    assert len(ids) == len(set(ids))
    tags = {tag["name"] for tag in document["tags"]}
    for _, path, operation in _operations(document):
        assert re.fullmatch(r"[a-z]+([A-Z][a-z]+)*", operation["operationId"])
        assert operation["summary"], path
        assert operation["description"], path
        assert set(operation["tags"]) <= tags, path
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (path, parameter["name"])
            assert {"type": "null"} not in parameter["schema"].get("anyOf", ())


def test_every_field_is_described_with_an_example(document):
    for name, model in document["components"]["schemas"].items():
        assert model["description"], name
        for field, schema in model.get("properties", {}).items():
            assert schema.get("description"), (name, field)
            if schema.get("type") in ("string", "integer", "boolean"):
                assert "examples" in schema or "const" in schema, (name, field)


def test_every_error_is_a_problem_with_an_example(document):
    documented = set()
    for _, path, operation in _operations(document):
        for status, response in operation["responses"].items():
            if status < "400":
                continue
            assert list(response["content"]) == [PROBLEM_MEDIA_TYPE], (path, status)
            for name, example in response["content"][PROBLEM_MEDIA_TYPE]["examples"].items():
                assert PROBLEM_TYPES[name].status == int(status) == example["value"]["status"]
                documented.add(name)
    assert documented == PROBLEM_TYPES.keys() - BEFORE_ROUTING - OF_PAGES
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_reads_and_writes_have_their_parameters_and_headers(document):
    for method, path, operation in _operations(document):
        if operation["operationId"] == "hearGateway":
            continue  # gateways send no key, and do not read the response
        if not path.startswith("/v1") or {"API keys", "Webhooks", "People"} & set(operation["tags"]):
            continue  # these write outside the log, and no projection shows it
        if operation["operationId"] in ("eraseBillingDetails", "issueInvoice", "switchOffAutoTopUp"):
            continue  # deleting, issuing or switching off again changes nothing
        names = {parameter["name"] for parameter in operation["parameters"]}
        answer = next(each for status, each in operation["responses"].items() if status < "300")
        assert "Ledger-Position" in answer["headers"]
        if method == "get" or operation["operationId"] in ("quote", "quotePurchase"):
            assert "min_position" in names
        else:
            assert "Idempotency-Key" in names
            assert "Idempotent-Replayed" in answer["headers"]
            assert {"400", "409", "413", "415", "422", "503"} - set(operation["responses"]) <= {"409"}


def test_examples_of_bodies_are_valid(document):
    with_body = {each["operationId"] for _, _, each in _operations(document) if "requestBody" in each}
    assert with_body == BODIES.keys()
    for _, _, operation in _operations(document):
        if operation["operationId"] in BODIES:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            BODIES[operation["operationId"]].model_validate(example_of(document, schema))


def test_every_reference_has_a_target(document):
    names = set(re.findall(r"#/components/schemas/(\w+)", repr(document)))
    assert names <= document["components"]["schemas"].keys()


def test_bounds_are_integers(document):
    position = document["components"]["schemas"]["Refund"]["properties"]["charge"]
    assert (position["minimum"], position["maximum"]) == (1, 2**63 - 1)
    assert not re.search(r"'m(in|ax)imum': \d+\.", repr(document))
