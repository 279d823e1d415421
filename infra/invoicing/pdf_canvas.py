"""An A4 page for text, boxes and lines. The only module that uses fpdf2."""

from __future__ import annotations

from datetime import datetime
from importlib.resources import as_file, files
from typing import Final, Literal

from fpdf import FPDF
from fpdf.enums import MethodReturnValue

Colour = tuple[int, int, int]

_LINE_MM_PER_POINT: Final = 0.51
_STYLES: Final[tuple[tuple[Literal["", "B"], str], ...]] = (("", "Regular"), ("B", "Bold"))


class PdfCanvas:
    """One page. Positions are millimetres from the top left corner, font sizes are points.

    The font Noto Sans is embedded, for the characters of `domain.invoicing.billing_details.PRINTABLE`.
    """

    def __init__(self, *, title: str, author: str, language: str, created_at: datetime) -> None:
        self._pdf = FPDF(format="A4")
        self._pdf.set_auto_page_break(auto=False)
        self._pdf.c_margin = 0
        for style, name in _STYLES:
            with as_file(files("infra") / "invoicing" / "fonts" / f"NotoSans-{name}.ttf") as font:
                self._pdf.add_font("Noto", style, font)
        # Use the document's date, not the time of printing, so that the same document gives the same bytes.
        self._pdf.set_creation_date(created_at)
        self._pdf.set_lang(language)
        self._pdf.set_title(title)
        self._pdf.set_author(author)
        self._pdf.add_page()

    def content(self) -> bytes:
        """Return the PDF."""
        return bytes(self._pdf.output())

    def box(self, left: float, top: float, width: float, height: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self._pdf.set_fill_color(*colour)
        self._pdf.rect(left, top, width, height, style="F")

    def rule(self, left: float, top: float, width: float, colour: Colour) -> None:
        """Draw a horizontal line."""
        self._pdf.set_draw_color(*colour)
        self._pdf.line(left, top, left + width, top)

    def text(
        self,
        text: str,
        left: float,
        top: float,
        width: float,
        *,
        size: float,
        colour: Colour,
        height: float,
        bold: bool = False,
        right: bool = False,
    ) -> float:
        """Write one line, in a smaller font if it does not fit. Return the top of the next line."""
        pdf = self._pdf
        self._set_font(size, colour, bold=bold)
        needed = pdf.get_string_width(text)
        if needed > width:
            pdf.set_font_size(size * width / needed)
        pdf.set_xy(left, top)
        pdf.cell(width, height, text, align="R" if right else "L")
        return top + height

    def wrapped(
        self,
        text: str,
        left: float,
        top: float,
        width: float,
        *,
        size: float,
        colour: Colour,
        bold: bool = False,
    ) -> float:
        """Write a text with line breaks. Return the top of the next line."""
        pdf = self._pdf
        self._set_font(size, colour, bold=bold)
        pdf.set_xy(left, top)
        pdf.multi_cell(width, size * _LINE_MM_PER_POINT, text, align="L", new_x="LEFT", new_y="NEXT")
        return pdf.get_y()

    def height_of(self, text: str, width: float, *, size: float, bold: bool = False) -> float:
        """Return the height of a wrapped text."""
        self._set_font(size, (0, 0, 0), bold=bold)
        height = self._pdf.multi_cell(
            width, size * _LINE_MM_PER_POINT, text, align="L", dry_run=True, output=MethodReturnValue.HEIGHT
        )
        assert isinstance(height, float | int)
        return height

    def _set_font(self, size: float, colour: Colour, *, bold: bool) -> None:
        self._pdf.set_text_color(*colour)
        self._pdf.set_font("Noto", "B" if bold else "", size)
