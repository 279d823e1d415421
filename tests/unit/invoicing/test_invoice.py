"""Series of invoices and credit notes: numbers, years, and the contents of documents."""

from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest

from domain.invoicing.documents import (
    DocumentKind,
    Line,
    decode_document,
    document_digest,
    encode_document,
)
from domain.invoicing.errors import InvoiceNotFound
from domain.invoicing.events import CreditNoteIssued, InvoiceIssued
from domain.invoicing.invoice_series import PREFIX, InvoiceSeries, number_of, path_of
from domain.invoicing.sale import sale_of
from domain.invoicing.tax import Tax, TaxName
from domain.payments.events import (
    PaymentAbandoned,
    PaymentKind,
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentRefundRequested,
)
from domain.pricing.price_book import CurrencyChange, Edition, PriceBook
from domain.shared.aggregate import EventEnvelope
from domain.shared.errors import InvariantViolation
from domain.shared.money import Currency
from tests.sales import (
    BENGALURU,
    BERLIN,
    KOLKATA,
    MUMBAI,
    NOON,
    OF_PAYMENT,
    REQUEST,
    SELLER,
    billed_to,
    credit_note,
    given_back,
    invoice,
    make_sale,
    requested,
    series,
)


class TestNumbers:
    @pytest.mark.parametrize(
        ("at", "number"),
        [
            pytest.param(datetime(2027, 3, 31, 18, 29, 59, tzinfo=UTC), "CL/26-27/000001", id="31 March"),
            pytest.param(datetime(2027, 3, 31, 18, 30, tzinfo=UTC), "CL/27-28/000001", id="1 April in India"),
            pytest.param(datetime(2026, 12, 31, tzinfo=UTC), "CL/26-27/000001", id="New Year is another day"),
            pytest.param(datetime(2099, 6, 1, tzinfo=UTC), "CL/99-00/000001", id="the turn of a century"),
        ],
    )
    def test_a_series_covers_a_financial_year_in_the_sellers_zone(self, at: datetime, number: str) -> None:
        assert series(at=at).next_header(at).number == number

    def test_credit_notes_have_a_series_of_their_own(self) -> None:
        notes = series(DocumentKind.CREDIT_NOTE)
        assert notes.next_header(NOON).number == "CLC/26-27/000001"
        assert notes.id != series().id
        assert len(notes.next_header(NOON).number) == 16, "the most that the law allows"

    def test_numbers_increase_by_one(self) -> None:
        issuing = series()
        for serial in (1, 2, 3):
            document = msgspec.structs.replace(invoice(make_sale()), number=issuing.next_header(NOON).number)
            issuing.issue(document, REQUEST)
            assert document.number == f"CL/26-27/{serial:06}"
        assert [envelope.event.serial for envelope in issuing.collect_events()] == [1, 2, 3]  # type: ignore[attr-defined]

    def test_a_series_continues_after_its_last_event(self) -> None:
        first = series()
        first.issue(invoice(make_sale()), REQUEST)
        (last,) = first.collect_events()
        later = InvoiceSeries(first.name, KOLKATA, last)
        assert later.next_header(NOON + timedelta(days=1)).number == "CL/26-27/000002"

    def test_dates_never_decrease_within_a_series(self) -> None:
        first = series()
        first.issue(invoice(make_sale()), REQUEST)
        (last,) = first.collect_events()
        slow_clock = InvoiceSeries(first.name, KOLKATA, last).next_header(NOON - timedelta(hours=1))
        assert slow_clock.issued_at == NOON

    def test_a_number_out_of_order_is_refused(self) -> None:
        event = InvoiceIssued(
            NOON, None, "request-1", "org-1", "CL/26-27/000007", 7, "payment-1", 1, 0, Currency.INR, "5f"
        )
        with pytest.raises(InvariantViolation, match="CL/26-27/000007 is document 1 of its series"):
            EventEnvelope(series().id, 1, event).mutate(series())

    def test_a_number_in_a_path_has_no_slash_and_can_be_parsed(self) -> None:
        assert path_of("CL/26-27/000123") == "CL-26-27-000123"
        assert number_of("CL-26-27-000123") == "CL/26-27/000123"

    @pytest.mark.parametrize(
        "path", ["", "CL-26-27", "cl-26-27-000001", "CL/26-27/000001", "CL-2026-27-000001"]
    )
    def test_an_invalid_number_is_unknown(self, path: str) -> None:
        with pytest.raises(InvoiceNotFound):
            number_of(path)

    @pytest.mark.parametrize(("prefix", "fits"), [("CL", True), ("9", True), ("", False), ("ABC", False)])
    def test_a_prefix_leaves_room_for_the_number(self, prefix: str, fits: bool) -> None:
        assert bool(PREFIX.fullmatch(prefix)) is fits


class TestSales:
    def test_an_unpaid_payment_has_no_sale(self) -> None:
        assert sale_of([requested(), PaymentAbandoned(*OF_PAYMENT, "CUSTOMER_CANCELLED")]) is None
        assert sale_of([]) is None

    def test_refunds_are_in_the_order_of_their_time(self) -> None:
        late = PaymentRefundRequested(*OF_PAYMENT, "a", 10, 1_500, 270)
        refused = PaymentRefundRequested(*OF_PAYMENT, "b", 10, 1_500, 270)
        sale = make_sale(
            late,
            refused,
            *given_back("c", 20, 3_000, 540),
            PaymentRefundFailed(*OF_PAYMENT, "b", "BAD_REQUEST_ERROR"),
            PaymentRefunded(*OF_PAYMENT, "a", "rfnd_a"),
        )
        assert [each.refund_id for each in sale.refunds] == ["c", "a"]


class TestInvoices:
    def test_credits_sold_to_another_state(self) -> None:
        document = invoice(make_sale())
        assert document.title == "Tax invoice"
        assert document.lines == (Line("Photo processing credits", "998439", 150_000, 1_000, 1_500_000),)
        assert document.taxes == (Tax(TaxName.IGST, 1_800, 27_000),)
        assert (document.amount_minor, document.tax_minor, document.total_minor) == (150_000, 27_000, 177_000)
        assert document.total_in_words == "177000 of INR"
        assert document.place_of_supply == "Maharashtra (27)"
        assert document.buyer.address.country_name == "country IN"
        assert document.seller.tax_id == SELLER.gstin
        assert (document.gateway_payment_id, document.order_id) == ("pay_1", "order_1")
        assert document.issued_on == date(2026, 11, 23)
        assert document.notes == ("Tax is not payable on reverse charge.",)

    def test_credits_sold_within_the_state(self) -> None:
        document = invoice(make_sale(), billed_to(BENGALURU, shipping=MUMBAI))
        assert [tax.name for tax in document.taxes] == [TaxName.CGST, TaxName.SGST]
        assert document.ship_to is not None
        assert document.ship_to.state_code == "27"

    def test_an_export(self) -> None:
        sale = make_sale(
            currency=Currency.USD,
            credits_minor=2_000,
            amount_minor=2_000,
            tax_minor=0,
            unit_price_millionths=20_000,
        )
        document = invoice(sale, billed_to(BERLIN))
        assert (document.title, document.taxes, document.place_of_supply) == ("Invoice", (), None)
        assert document.notes == ("Export of services: no tax is charged.",)
        undertaken = msgspec.structs.replace(SELLER, letter_of_undertaking="AD290426000001X")
        (note,) = invoice(sale, billed_to(BERLIN), undertaken).notes
        assert "under letter of undertaking AD290426000001X without payment of integrated tax" in note

    def test_a_sale_in_rupees_to_another_country_is_taxed_and_not_an_export(self) -> None:
        document = invoice(make_sale(), billed_to(BERLIN))
        assert document.taxes == (Tax(TaxName.IGST, 1_800, 27_000),)
        assert document.notes == ()

    def test_a_subscription_and_credits(self) -> None:
        sale = make_sale(kind=PaymentKind.PRO, fee_minor=1_000_000, amount_minor=1_150_000, tax_minor=207_000)
        assert invoice(sale).lines == (
            Line("Pro subscription, 365 days", "998439", 1_000_000),
            Line("Photo processing credits", "998439", 150_000, 1_000, 1_500_000),
        )

    def test_credits_included_in_a_subscription_have_no_line(self) -> None:
        book = PriceBook(
            [Edition("2027", NOON, currencies={Currency.INR: CurrencyChange(pro_credits=5_000)})]
        )
        sale = make_sale(
            kind=PaymentKind.PRO,
            price_version="2027",
            credits=5_000,
            credits_minor=0,
            fee_minor=1_000_000,
            amount_minor=1_000_000,
            tax_minor=180_000,
        )
        (line,) = invoice(sale, book=book).lines
        assert line.description == "Pro subscription, 365 days, 5,000 credits included"

    def test_a_custom_payment(self) -> None:
        sale = make_sale(kind=PaymentKind.CUSTOM, credits=0, credits_minor=0, fee_minor=150_000)
        assert invoice(sale).lines == (Line("Custom payment", "998439", 150_000),)

    def test_the_stored_text_is_the_document_and_its_digest_reveals_any_change(self) -> None:
        document = invoice(make_sale())
        stored = series().issue(document, REQUEST)
        assert decode_document(stored) == document
        assert stored == encode_document(document)
        assert document_digest(stored) != document_digest(stored.replace(b"Buyer", b"Other"))

    def test_the_event_has_no_personal_data(self) -> None:
        issuing = series()
        stored = issuing.issue(invoice(make_sale()), REQUEST)
        (envelope,) = issuing.collect_events()
        assert envelope.event == InvoiceIssued(
            NOON,
            "u-1",
            "request-1",
            "org-4711",
            "CL/26-27/000001",
            1,
            "payment-1",
            150_000,
            27_000,
            Currency.INR,
            document_digest(stored),
        )


class TestCreditNotes:
    def test_a_credit_note_has_its_invoice_and_its_taxes(self) -> None:
        note = credit_note(make_sale(*given_back("refund-1", 400, 60_000, 10_800)))
        assert (note.kind, note.title, note.number) == (
            DocumentKind.CREDIT_NOTE,
            "Credit note",
            "CLC/26-27/000001",
        )
        assert note.lines == (Line("Unused photo processing credits returned", "998439", 60_000, 400),)
        assert note.taxes == (Tax(TaxName.IGST, 1_800, 10_800),)
        assert (note.total_minor, note.total_in_words) == (70_800, "70800 of INR")
        assert note.correction is not None
        assert note.correction.invoice_number == "CL/26-27/000001"
        assert note.correction.refund_id == "refund-1"

    def test_taxes_of_several_credit_notes_add_up_to_those_of_the_invoice(self) -> None:
        sale = make_sale(
            *given_back("a", 333, 49_950, 8_991),
            *given_back("b", 333, 49_950, 8_991),
            *given_back("c", 334, 50_100, 9_018),
        )
        notes = [credit_note(sale, number, billed_to(BENGALURU)) for number in range(3)]
        of_each = [[tax.amount_minor for tax in note.taxes] for note in notes]
        assert of_each == [[4_495, 4_496], [4_496, 4_495], [4_509, 4_509]]
        assert [sum(amounts) for amounts in zip(*of_each, strict=True)] == [13_500, 13_500]

    @pytest.mark.parametrize(
        ("kind", "description"),
        [(PaymentKind.PRO, "Pro subscription refunded"), (PaymentKind.CUSTOM, "Payment refunded")],
    )
    def test_a_refund_without_credits(self, kind: PaymentKind, description: str) -> None:
        sale = make_sale(
            *given_back("a", 0, 60_000, 10_800), kind=kind, fee_minor=150_000, credits_minor=0, credits=0
        )
        assert credit_note(sale).lines == (Line(description, "998439", 60_000),)

    def test_the_event_has_the_corrected_invoice(self) -> None:
        sale = make_sale(*given_back("refund-1", 400, 60_000, 10_800))
        notes = series(DocumentKind.CREDIT_NOTE)
        notes.issue(credit_note(sale), REQUEST)
        (envelope,) = notes.collect_events()
        assert isinstance(envelope.event, CreditNoteIssued)
        assert (envelope.event.refund_id, envelope.event.invoice_number) == ("refund-1", "CL/26-27/000001")
