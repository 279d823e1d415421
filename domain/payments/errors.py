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
    """The organisation has the Pro subscription. It can be bought again after it ends."""


class BilledByAgreement(LedgerError):
    """The organisation is billed by agreement: it cannot buy here."""


class GatewayNotFound(LedgerError):
    """No gateway of this name is configured, or it does not support the currency."""


class PaymentNotFound(LedgerError):
    """The organisation has no payment of this id."""


class PaymentClosed(LedgerError):
    """The payment is paid or has failed, so it cannot be abandoned."""


class PaymentNotRefundable(LedgerError):
    """The payment is not paid, or has nothing of this kind to refund."""


class RefundExceedsRefundableFee(LedgerError):
    """The refund exceeds the money that paid for no credits and is not refunded yet."""


class FlagNotOpen(LedgerError):
    """The payment has no such flag, or it is settled."""
