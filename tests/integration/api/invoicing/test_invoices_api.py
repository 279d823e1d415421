"""Billing details and invoices over HTTP."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pypdf import PdfReader

from domain.payments.events import (
    PaymentCompleted,
    PaymentOrdered,
    PaymentRefunded,
    PaymentRefundRequested,
)
from domain.shared.aggregate import EventEnvelope
from domain.shared.stream_keys import payment_stream
from tests.integration.api.ledger_api import LedgerApi, invalid_fields, problem_of
from tests.sales import NOON, requested

DETAILS = {
    "name": "Marathon Photos Pvt Ltd",
    "email": "accounts@marathon.example",
    "address": {
        "country": "IN",
        "state": "Maharashtra",
        "city": "Mumbai",
        "postal_code": "400001",
        "lines": ["12 Fort"],
    },
    "tax_id": "27AAPFU0939F1ZV",
}


@pytest.fixture
def billed(client: Any, organisation: str) -> str:
    """The path of an organisation with billing details."""
    response = client.put(f"{organisation}/billing-details", json=DETAILS)
    assert response.status_code == 200, response.text
    return organisation


@pytest.fixture
def paid(ledger_api: LedgerApi, organisation: str) -> str:
    """The id of a completed payment of the organisation, 40 % of which was refunded."""
    organisation_id = organisation.rpartition("/")[2]
    payment_id = f"payment-of-{organisation_id}"
    common = (NOON, "u-1", "request-1", organisation_id, payment_id)
    payment_events = [
        requested(organisation_id=organisation_id, payment_id=payment_id),
        PaymentOrdered(*common, "razorpay", f"order-of-{organisation_id}"),
        PaymentCompleted(*common, "pay_1", 3),
        PaymentRefundRequested(*common, "refund-1", 400, 60_000, 10_800),
        PaymentRefunded(*common, "refund-1", "rfnd_1"),
    ]
    stream = payment_stream(payment_id)
    events = [EventEnvelope(stream, version, event) for version, event in enumerate(payment_events, 1)]
    store: Any = ledger_api.services.ledger.events
    store.append(events, idempotency_key=None, response=b"")
    return payment_id


class TestBillingDetails:
    def test_there_are_none_at_first(self, read: Any, organisation: str) -> None:
        on_file = read(f"{organisation}/billing-details")
        assert (on_file["details"], on_file["changed_at"], on_file["changed_by"]) == (None, None, None)

    def test_stored_details_are_read_back(self, client: Any, read: Any, organisation: str) -> None:
        untidy = {**DETAILS, "name": " Marathon  Photos Pvt Ltd", "tax_id": "27 aapfu0939f1zv"}
        put = client.put(f"{organisation}/billing-details", json=untidy)
        assert put.status_code == 200, put.text
        on_file = read(f"{organisation}/billing-details", min_position=put.json()["position"])
        assert {name: on_file["details"][name] for name in DETAILS} == DETAILS
        assert (on_file["details"]["phone"], on_file["details"]["shipping"]) == (None, None)
        assert on_file["changed_by"] == "staff-3"
        assert put.json()["details"] == on_file["details"]

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"tax_id": "27AAPFU0939F1ZW"}, "tax_id"),
            ({"email": "nobody"}, "email"),
            ({"address": {**DETAILS["address"], "state": "Bavaria"}}, "address.state"),  # type: ignore[dict-item]
            ({"address": {**DETAILS["address"], "lines": []}}, "address.lines"),  # type: ignore[dict-item]
            ({"shipping": {**DETAILS["address"], "postal_code": "1"}}, "shipping.postal_code"),  # type: ignore[dict-item]
            ({"surname": "x"}, "surname"),
        ],
    )
    def test_an_invalid_field_is_named(
        self, client: Any, organisation: str, changes: dict[str, Any], field: str
    ) -> None:
        response = client.put(f"{organisation}/billing-details", json={**DETAILS, **changes})
        assert (response.status_code, invalid_fields(response)) == (422, [field])

    def test_all_invalid_fields_are_named_together(self, client: Any, organisation: str) -> None:
        wrong = {
            **DETAILS,
            "email": "nobody",
            "tax_id": None,
            "shipping": {"country": "IN", "city": "", "lines": [""]},
        }
        response = client.put(f"{organisation}/billing-details", json=wrong)
        assert (response.status_code, problem_of(response)) == (422, "invalid-request")
        parts = ("lines", "city", "postal_code", "state")
        assert invalid_fields(response) == ["email", *(f"shipping.{part}" for part in parts)]
        assert response.json()["detail"].startswith("email: 'nobody' is no email address")

    def test_a_repeat_with_its_key_changes_nothing(self, client: Any, organisation: str) -> None:
        sent = {"json": DETAILS, "headers": {"Idempotency-Key": "billing-1"}}
        first, again = (client.put(f"{organisation}/billing-details", **sent) for _ in range(2))
        assert again.headers["idempotent-replayed"] == "true"
        assert again.json() == first.json()

    def test_they_are_erased(self, client: Any, read: Any, billed: str) -> None:
        for _ in range(2):
            assert client.delete(f"{billed}/billing-details").status_code == 204
        assert read(f"{billed}/billing-details")["details"] is None


class TestInvoices:
    def test_a_payment_waits_for_billing_details(self, client: Any, organisation: str, paid: str) -> None:
        waiting = client.post(f"{organisation}/payments/{paid}/invoice")
        assert (waiting.status_code, problem_of(waiting)) == (409, "billing-details-missing")
        client.put(f"{organisation}/billing-details", json=DETAILS)
        assert client.post(f"{organisation}/payments/{paid}/invoice").status_code == 200

    def test_an_unpaid_payment_has_no_invoice(self, client: Any, billed: str) -> None:
        response = client.post(f"{billed}/payments/payment-0/invoice")
        assert (response.status_code, problem_of(response)) == (409, "nothing-to-invoice")

    def test_from_the_list_to_the_document(self, client: Any, read: Any, billed: str, paid: str) -> None:
        issued = client.post(f"{billed}/payments/{paid}/invoice").json()["invoices"]
        listed = read(f"{billed}/invoices")
        assert listed["invoices"] == issued[::-1], "newest first"
        invoice, note = issued
        assert (invoice["kind"], invoice["title"], invoice["total_minor"]) == (
            "invoice",
            "Tax invoice",
            177_000,
        )
        assert invoice["id"] == invoice["number"].replace("/", "-")
        assert (note["kind"], note["refund_id"], note["total_minor"]) == ("credit_note", "refund-1", 70_800)
        whole = read(f"{billed}/invoices/{invoice['id']}")
        assert {name: whole[name] for name in invoice} == invoice
        assert whole["buyer"]["tax_id"] == DETAILS["tax_id"]
        assert whole["place_of_supply"] == "Maharashtra (27)"
        assert whole["taxes"] == [{"name": "IGST", "rate_basis_points": 1_800, "amount_minor": 27_000}]
        assert whole["notes"][0] == "Specimen: this seller is made up, and this is no tax document."
        corrected = read(f"{billed}/invoices/{note['id']}")["correction"]
        assert corrected["invoice_number"] == invoice["number"]

    def test_the_list_comes_in_pages(self, client: Any, read: Any, billed: str, paid: str) -> None:
        issued = client.post(f"{billed}/payments/{paid}/invoice").json()["invoices"]
        first = read(f"{billed}/invoices", limit=1)
        second = read(f"{billed}/invoices", limit=1, cursor=first["next_cursor"])
        assert [first["invoices"][0]["id"], second["invoices"][0]["id"]] == [
            issued[1]["id"],
            issued[0]["id"],
        ]
        assert second["next_cursor"] is None
        assert read(f"{billed}/invoices", limit=2)["next_cursor"] is None

    def test_the_pdf(self, client: Any, billed: str, paid: str, ledger_api: LedgerApi) -> None:
        invoice, note = client.post(f"{billed}/payments/{paid}/invoice").json()["invoices"]
        ledger_api.catch_up()
        for document, line in ((invoice, "Total paid ₹1,770.00"), (note, "Total refunded ₹708.00")):
            download = client.get(f"{billed}/invoices/{document['id']}.pdf")
            assert download.headers["content-type"] == "application/pdf"
            assert download.headers["content-disposition"] == f'attachment; filename="{document["id"]}.pdf"'
            assert int(download.headers["ledger-position"]) > 0
            (page,) = PdfReader(io.BytesIO(download.content)).pages
            assert line in page.extract_text()
            assert client.get(f"{billed}/invoices/{document['id']}.pdf").content == download.content

    @pytest.mark.parametrize("name", ["CL-26-27-999999", "nonsense", "CL-26-27-999999.pdf", ".pdf"])
    def test_an_unknown_number(self, client: Any, billed: str, ledger_api: LedgerApi, name: str) -> None:
        ledger_api.catch_up()
        response = client.get(f"{billed}/invoices/{name}")
        assert (response.status_code, problem_of(response)) == (404, "invoice-unknown")

    def test_an_invoice_of_another_organisation_is_unknown(
        self, client: Any, billed: str, paid: str, ledger_api: LedgerApi
    ) -> None:
        invoice = client.post(f"{billed}/payments/{paid}/invoice").json()["invoices"][0]
        other = billed.replace("org-", "other-")
        client.put(other, json={"time_zone": "UTC", "currency": "INR"})
        ledger_api.catch_up()
        for suffix in ("", ".pdf"):
            response = client.get(f"{other}/invoices/{invoice['id']}{suffix}")
            assert problem_of(response) == "invoice-unknown"
        assert problem_of(client.post(f"{other}/payments/{paid}/invoice")) == "nothing-to-invoice"
