"""Refusals about invoices."""

from __future__ import annotations

from domain.shared.errors import LedgerError


class InvoiceNotFound(LedgerError):
    """The organisation has no invoice or credit note of this number."""


class PaymentNotInvoiceable(LedgerError):
    """The payment is not completed, or is none."""
