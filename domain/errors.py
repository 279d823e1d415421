"""Every error a caller of the ledger can meet, under one root."""

from __future__ import annotations


class LedgerError(Exception):
    """The ledger refused the request."""

    def __init__(self, message: str | None = None, **details: object) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])
        self.details = details


class OrganisationUnknown(LedgerError):
    """No organisation has this id."""


class OrganisationAlreadyOpen(LedgerError):
    """An organisation with this id is already open."""


class InvalidInput(LedgerError):
    """A value is outside what the ledger accepts; `field` names it, and `faults` all that are, with why."""

    def __init__(self, field: str, message: str, *more: tuple[str, str]) -> None:
        self.field = field
        self.faults = ((field, message), *more)
        told = "; ".join(f"{name}: {why}" for name, why in self.faults) if more else message
        super().__init__(told, field=field)


class Faults:
    """What is wrong with several values, gathered so that all of it is told at once."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def add(self, field: str, message: str) -> None:
        """Remember what is wrong with a field. Its first fault stays: the others may follow from it."""
        self._found.setdefault(field, message)

    def check(self) -> None:
        """Check that nothing was found.

        Raises:
            InvalidInput: with all faults, in the order they were found.
        """
        if self._found:
            first, *more = self._found.items()
            raise InvalidInput(*first, *more)


class CurrencyMismatch(LedgerError):
    """The currency is not the one of the organisation."""


class PurchaseAlreadyRecorded(LedgerError):
    """This payment has already added its credits."""


class ChargeUnknown(LedgerError):
    """The organisation has no charge with this number."""


class RefundExceedsCharge(LedgerError):
    """The refund is larger than what is left of the charge."""


class InsufficientCredits(LedgerError):
    """Fewer credits are available than were asked for."""


class HoldUnknown(LedgerError):
    """The organisation has no hold of this id."""


class HoldClosed(LedgerError):
    """The run had its hold: it was settled, released, or has lapsed."""


class HoldConflict(LedgerError):
    """The run has an open hold that was asked for differently."""


class IdempotencyConflict(LedgerError):
    """The idempotency key was used before with a different request."""


class PriceVersionUnknown(LedgerError):
    """The price book has no edition of this version."""


class BillingDetailsMissing(LedgerError):
    """The organisation has no billing details on file."""


class InvoiceUnknown(LedgerError):
    """The organisation has no invoice or credit note of this number."""


class NothingToInvoice(LedgerError):
    """The payment is not completed, or is none."""


class QuoteUnknown(LedgerError):
    """The organisation has no quote of this id."""


class QuoteExpired(LedgerError):
    """The quote's time is over: ask for a new one."""


class ProAlready(LedgerError):
    """The organisation has the Pro subscription: it is bought when that has ended."""


class BillingIsCustom(LedgerError):
    """The organisation is billed by agreement: it buys nothing here."""


class AutoTopUpIsOn(LedgerError):
    """Auto top-up is on: change it, or switch it off before another card pays for it."""


class AutoTopUpIsOff(LedgerError):
    """Auto top-up is not on: a purchase with it switches it on."""


class GatewayUnknown(LedgerError):
    """No gateway of this name is set up, or it does not take the currency."""


class PaymentUnknown(LedgerError):
    """The organisation has no payment of this id."""


class PaymentClosed(LedgerError):
    """The payment is paid or has failed: there is nothing to give up."""


class PaymentNotRefundable(LedgerError):
    """The payment is not paid, or took nothing of the kind that is to go back."""


class RefundExceedsPurchase(LedgerError):
    """More credits than can be taken back: some were spent, are held, or went back before."""


class RefundExceedsPayment(LedgerError):
    """More money than was paid for no credits, and has not gone back."""


class FlagNotOpen(LedgerError):
    """The payment has no such flag, or it is settled."""


class InvariantBroken(LedgerError):
    """The books do not add up: a programmer's error, never an input's."""


class StoreError(LedgerError):
    """The event store could not do what was asked."""


class StaleVersion(StoreError):
    """Another writer appended to the organisation first."""


class RepeatedKey(StoreError):
    """A deduplication key is already in the ledger."""


class PositionMoved(StoreError):
    """The stored position is not the expected one: another consumer owns the partition."""


class StoreUnavailable(StoreError):
    """The database cannot be reached at the moment."""


class UnknownEventType(StoreError):
    """A stored event has a topic this version of the ledger does not know."""


class DeadLettersUnavailable(LedgerError):
    """The dead-letter topic did not take a record in time."""


class WebhookEndpointUnknown(LedgerError):
    """The organisation has no webhook endpoint of this id."""


class WebhookEndpointsExhausted(LedgerError):
    """The organisation has as many webhook endpoints as it may."""


class WebhookEndpointIsDisabled(LedgerError):
    """Nothing is sent to the endpoint: it failed for days, or said that it is gone. Enable it first."""


class PersonUnknown(LedgerError):
    """Nobody has told of a person with this id."""


class PersonErased(LedgerError):
    """The person was erased, and stays so."""
