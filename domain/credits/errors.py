"""Refusals of commands on credits."""

from __future__ import annotations

from domain.shared.errors import LedgerError


class OrganisationNotFound(LedgerError):
    """No organisation has this id."""


class OrganisationAlreadyOpen(LedgerError):
    """An organisation with this id is already open."""


class CurrencyMismatch(LedgerError):
    """The currency is not the one of the organisation."""


class PurchaseAlreadyRecorded(LedgerError):
    """This payment has already added its credits."""


class ChargeNotFound(LedgerError):
    """The organisation has no charge with this number."""


class RefundExceedsCharge(LedgerError):
    """The refund is larger than what is left of the charge."""


class InsufficientCredits(LedgerError):
    """Fewer credits are available than were requested."""


class HoldNotFound(LedgerError):
    """The organisation has no hold of this id."""


class HoldClosed(LedgerError):
    """The run has already used its one hold: it was settled or released, or it has expired."""


class HoldConflict(LedgerError):
    """The run has an open hold that was requested with other values."""


class AutoTopUpAlreadyOn(LedgerError):
    """Auto top-up is on: change it, or switch it off before another card pays for it."""


class AutoTopUpNotOn(LedgerError):
    """Auto top-up is not on: a purchase with it switches it on."""


class RefundExceedsPurchase(LedgerError):
    """More credits than can be taken back: some were spent, are held, or were taken back before."""
