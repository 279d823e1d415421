"""Renders an invoice or a credit note as a PDF of one page. The same document gives the same bytes.

The page shows only data of the stored document. Amounts and dates have the format of the currency's locale:
rupees in lakhs and crores.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from babel.dates import format_date
from babel.numbers import format_currency, format_decimal

from domain.invoicing.documents import DocumentKind, InvoiceDocument, Line, Party, PrintedAddress
from domain.shared.money import MILLIONTHS, Currency
from infra.invoicing.pdf_canvas import PdfCanvas

_LOCALES: Final = {Currency.INR: "en_IN", Currency.USD: "en_US"}
_UNIT_PRICES: Final = {Currency.INR: "¤#,##,##0.00####", Currency.USD: "¤#,##0.00####"}
_MINOR_PER_UNIT: Final = 100
_GATEWAYS: Final = {"razorpay": "Razorpay", "payglocal": "PayGlocal"}
_TAX_IDS: Final = {"IN": "GSTIN", "AU": "ABN", "CA": "BN", "NZ": "IRD", "US": "EIN"}

_PAGE: Final = 210
_LEFT: Final = 18
_WIDTH: Final = _PAGE - 2 * _LEFT
_HALF: Final = _WIDTH / 2
_TOTALS: Final = 84
_GAP: Final = 4
_FOOT: Final = 279
_REST: Final = 85  # largest height from the buyer_and_payment to the foot
_COLUMNS: Final = (("Description", 78), ("SAC", 20), ("Quantity", 22), ("Unit price", 24), ("Amount", 30))

_INK: Final = (28, 32, 42)
_MUTED: Final = (104, 112, 128)
_ACCENT: Final = (30, 64, 110)
_TINT: Final = (238, 242, 248)
_RULE: Final = (214, 220, 230)
_WHITE: Final = (255, 255, 255)
_SMALL: Final = 7.5
_BODY: Final = 9


def render_pdf(document: InvoiceDocument) -> bytes:
    """Return the PDF of a document."""
    drawing = _Drawing(document)
    below = drawing.head()
    below = drawing.details(below + 6)
    below = drawing.buyer_and_payment(below + 7)
    below = drawing.lines(below + 7)
    drawing.totals(below + 4)
    drawing.foot()
    return drawing.canvas.content()


class _Drawing:
    """Draws the parts of the page from top to bottom. Each method returns the lower edge of its part."""

    def __init__(self, document: InvoiceDocument) -> None:
        self._document = document
        self._locale = _LOCALES[document.currency]
        self._zone = ZoneInfo(document.time_zone)
        self.canvas = PdfCanvas(
            title=f"{document.title} {document.number}",
            author=document.seller.name,
            language=self._locale.replace("_", "-"),
            created_at=document.issued_at,
        )

    def head(self) -> float:
        """Draw the seller, the title and the number."""
        canvas, document = self.canvas, self._document
        canvas.box(0, 0, _PAGE, 3.2, _ACCENT)
        half, right = _HALF + 12, _LEFT + _HALF + 12
        top = canvas.text(document.seller.name, _LEFT, 16, half, size=15, colour=_INK, height=7, bold=True)
        for line in (*_address(document.seller.address), *_contact(document.seller)):
            top = canvas.text(line, _LEFT, top, half, size=8.5, colour=_MUTED, height=4.3)
        width = _HALF - 12
        number_top = canvas.text(
            document.title, right, 15.4, width, size=19, colour=_ACCENT, height=9, bold=True, right=True
        )
        canvas.text(document.number, right, number_top, width, size=11, colour=_INK, height=6, right=True)
        return top

    def details(self, top: float) -> float:
        """Draw the dates, and the place of supply or the corrected invoice."""
        details = self._details()
        width, height = _WIDTH / len(details), 15
        self.canvas.box(_LEFT, top, _WIDTH, height, _TINT)
        for number, (name, value) in enumerate(details):
            left = _LEFT + 3 + number * width
            below = self.canvas.text(
                name, left, top + 2.2, width - _GAP, size=_SMALL, colour=_MUTED, height=4.2
            )
            self.canvas.text(value, left, below, width - _GAP, size=9.5, colour=_INK, height=5.4, bold=True)
        return top + height

    def buyer_and_payment(self, top: float) -> float:
        """Draw the buyer, the shipping address and the payment, in columns."""
        document = self._document
        buyer = [document.buyer.name, *_address(document.buyer.address), *_contact(document.buyer)]
        columns = [("Billed to", buyer)]
        if document.ship_to is not None:
            columns.append(("Shipped to", [document.buyer.name, *_address(document.ship_to)]))
        columns.append(("Payment", self._payment()))
        width, lowest = _WIDTH / len(columns), top
        size = self._size_that_fits([texts for _, texts in columns], width - _GAP, _FOOT - _REST - top)
        for number, (heading, texts) in enumerate(columns):
            left = _LEFT + number * width
            below = self._heading(heading, left, top, width - _GAP)
            for place, text in enumerate(texts):
                colour, bold = (_INK, True) if place == 0 else (_MUTED, False)
                below = self.canvas.wrapped(
                    text, left, below, width - _GAP, size=size, colour=colour, bold=bold
                )
            lowest = max(lowest, below)
        return lowest

    def lines(self, top: float) -> float:
        """Draw the lines of the sale or refund."""
        self.canvas.box(_LEFT, top, _WIDTH, 8, _ACCENT)
        self._row([name for name, _ in _COLUMNS], top, 8, size=8, colour=_WHITE, bold=True)
        top += 8
        for line in self._document.lines:
            self._row(self._cells(line), top, 10, size=_BODY, colour=_INK)
            top += 10
            self.canvas.rule(_LEFT, top, _WIDTH, _RULE)
        return top

    def totals(self, top: float) -> None:
        """Draw the totals on the right, and the total in words and the notes on the left."""
        document = self._document
        totals = [("Taxable value" if document.taxes else "Amount", document.amount_minor)]
        totals += [
            (f"{tax.name} {_per_cent(tax.rate_basis_points)}", tax.amount_minor) for tax in document.taxes
        ]
        left, below = _LEFT + _WIDTH - _TOTALS, top
        for name, amount_minor in totals:
            below = self._total_line(name, amount_minor, left, below, size=_BODY, height=6.2)
        self.canvas.box(left, below + 1.5, _TOTALS, 11, _TINT)
        total = "Total paid" if document.kind is DocumentKind.INVOICE else "Total refunded"
        self._total_line(total, document.total_minor, left, below + 1.5, size=12, height=11, bold=True)
        width = _WIDTH - _TOTALS - 2 * _GAP
        note_top = self._heading("Total in words", _LEFT, top + 0.6, width)
        note_top = self.canvas.wrapped(
            document.total_in_words, _LEFT, note_top, width, size=_BODY, colour=_INK
        )
        for note in document.notes:
            note_top = self.canvas.wrapped(note, _LEFT, note_top + 3, width, size=8.5, colour=_MUTED)

    def foot(self) -> None:
        """Draw the contact, and the note about the missing signature."""
        self.canvas.rule(_LEFT, _FOOT, _WIDTH, _RULE)
        contact = f"Questions? Write to {self._document.seller.email}."
        self.canvas.text(contact, _LEFT, _FOOT + 2, _HALF, size=8, colour=_MUTED, height=4)
        unsigned = "Made electronically; valid without a signature."
        middle = _LEFT + _HALF
        self.canvas.text(unsigned, middle, _FOOT + 2, _HALF, size=8, colour=_MUTED, height=4, right=True)

    def _details(self) -> list[tuple[str, str]]:
        document = self._document
        details = [("Date of issue", self._day(document.issued_on))]
        correction = document.correction
        if correction is None:
            details.append(("Paid on", self._day(document.paid_at.astimezone(self._zone).date())))
        else:
            details.append(("Refunded on", self._day(correction.refunded_at.astimezone(self._zone).date())))
            invoice = f"{correction.invoice_number} of {self._day(correction.invoice_issued_on)}"
            details.append(("Corrects invoice", invoice))
        if document.place_of_supply is not None:
            details.append(("Place of supply", document.place_of_supply))
        return details

    def _payment(self) -> list[str]:
        document = self._document
        texts = [
            _GATEWAYS.get(document.gateway, document.gateway),
            f"Payment {document.gateway_payment_id}",
            f"Order {document.order_id}",
        ]
        return texts if document.correction is None else [*texts, f"Refund {document.correction.refund_id}"]

    def _size_that_fits(self, columns: Sequence[Sequence[str]], width: float, room: float) -> float:
        """Return the largest font size at which the columns fit into the available height."""
        for size in (_BODY, 7.5, 6, 5):
            heights = [
                sum(
                    self.canvas.height_of(text, width, size=size, bold=place == 0)
                    for place, text in enumerate(texts)
                )
                for texts in columns
            ]
            if max(heights) <= room:
                return size
        return 4

    def _cells(self, line: Line) -> Sequence[str]:
        quantity = "" if line.quantity is None else format_decimal(line.quantity, locale=self._locale)
        each = "" if line.unit_price_millionths is None else self._unit_price(line.unit_price_millionths)
        return (line.description, line.service_code, quantity, each, self._money(line.amount_minor))

    def _heading(self, text: str, left: float, top: float, width: float) -> float:
        return self.canvas.text(
            text.upper(), left, top, width, size=_SMALL, colour=_ACCENT, height=5.4, bold=True
        )

    def _row(
        self,
        cells: Sequence[str],
        top: float,
        height: float,
        *,
        size: float,
        colour: tuple[int, int, int],
        bold: bool = False,
    ) -> None:
        left = _LEFT + _GAP / 2
        for number, (cell, (_, width)) in enumerate(zip(cells, _COLUMNS, strict=True)):
            is_text = number < 2
            self.canvas.text(
                cell,
                left,
                top,
                width - _GAP,
                size=size,
                colour=colour,
                height=height,
                bold=bold,
                right=not is_text,
            )
            left += width

    def _total_line(
        self,
        name: str,
        amount_minor: int,
        left: float,
        top: float,
        *,
        size: float,
        height: float,
        bold: bool = False,
    ) -> float:
        colour = _INK if bold else _MUTED
        self.canvas.text(name, left + 3, top, 34, size=size, colour=colour, height=height, bold=bold)
        money = self._money(amount_minor)
        return self.canvas.text(
            money, left + 37, top, _TOTALS - 39, size=size, colour=_INK, height=height, bold=bold, right=True
        )

    def _money(self, amount_minor: int) -> str:
        amount = Decimal(amount_minor) / _MINOR_PER_UNIT
        return format_currency(amount, self._document.currency.value, locale=self._locale)

    def _unit_price(self, price_millionths: int) -> str:
        currency = self._document.currency
        price = Decimal(price_millionths) / MILLIONTHS
        pattern = _UNIT_PRICES[currency]
        return format_currency(price, currency.value, pattern, locale=self._locale, currency_digits=False)

    def _day(self, day: date) -> str:
        return format_date(day, "d MMM y", locale=self._locale)


def _address(address: PrintedAddress) -> list[str]:
    place = " ".join(filter(None, [address.city, address.postal_code]))
    code = "" if address.state_code is None else f" ({address.state_code})"
    return [*address.lines, place, ", ".join(filter(None, [address.state + code, address.country_name]))]


def _contact(party: Party) -> list[str]:
    named = _TAX_IDS.get(party.address.country, "VAT ID")
    tax_id = [] if party.tax_id is None else [f"{named} {party.tax_id}"]
    return [*tax_id, *filter(None, [party.email, party.phone])]


def _per_cent(basis_points: int) -> str:
    return f"{Decimal(basis_points) / 100:f} %"
