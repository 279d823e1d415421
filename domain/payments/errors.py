"""Refusals about payments."""

from __future__ import annotations

from domain.shared.errors import LedgerError


class BillingDetailsMissing(LedgerError):
    """The organisation has no billing details on file."""


class QuoteNotFound(LedgerError):
    """The organisation has no quote of this id."""


class QuoteExpired(LedgerError):
    """The quote's time is over: ask for a new one."""


class ProAlreadyActive(LedgerError):
    """The organisation has the Pro subscription: it is bought when that has ended."""


class BilledByAgreement(LedgerError):
    """The organisation is billed by agreement: it buys nothing here."""


class GatewayNotFound(LedgerError):
    """No gateway of this name is set up, or it does not take the currency."""


class PaymentNotFound(LedgerError):
    """The organisation has no payment of this id."""


class PaymentClosed(LedgerError):
    """The payment is paid or has failed: there is nothing to give up."""


class PaymentNotRefundable(LedgerError):
    """The payment is not paid, or took nothing of the kind that is to go back."""


class RefundExceedsRefundableFee(LedgerError):
    """More money than was paid for no credits, and has not gone back."""


class FlagNotOpen(LedgerError):
    """The payment has no such flag, or it is settled."""
