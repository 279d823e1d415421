"""The use cases of auto top-up: its settings, and the purchases that it begins (decision 0011)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from domain.aggregate import Aggregate
from domain.auto_top_up import LastTopUp, OffReason, TopUpTerms
from domain.errors import BillingIsCustom, GatewayUnknown, InvalidInput
from domain.facts import Request
from domain.gateway import GatewayError
from domain.organisation import Organisation
from domain.payment import PAID, UNPAID, Payment, Terms
from domain.payment_book import PaymentBook
from domain.ports import Once
from domain.purchases import PurchasePlan, quote
from domain.recording import Result


class TopUpStanding(msgspec.Struct, frozen=True):
    """The answer to a command on auto top-up: `version` is the organisation's after it."""

    organisation_id: str
    version: int
    is_on: bool


class _Begun(msgspec.Struct, frozen=True):
    payment_id: str | None
    is_on: bool = True


class TopUps:
    """Commands on auto top-up. Every method may raise OrganisationUnknown, StoreUnavailable."""

    def __init__(self, book: PaymentBook) -> None:
        self._book = book

    def change(
        self, organisation_id: str, terms: TopUpTerms, *, request: Request, once: Once | None = None
    ) -> Result[TopUpStanding]:
        """Change what is bought by itself, and when.

        Raises:
            AutoTopUpIsOff, IdempotencyConflict, BillingIsCustom.
            InvalidInput: out of range, or more than was agreed to pay for.
        """

        def decide() -> tuple[Sequence[Aggregate], TopUpStanding]:
            organisation = self._book.ledger.organisation(organisation_id)
            total_minor = self._quoted(organisation, terms, request).total_minor
            organisation.change_auto_top_up(terms, total_minor, request)
            return [organisation], _standing(organisation)

        return self._book.recording.record(decide, once, TopUpStanding)

    def switch_off(
        self, organisation_id: str, *, request: Request, once: Once | None = None
    ) -> Result[TopUpStanding]:
        """Buy nothing by itself any more, and have the gateway forget the card.

        If the gateway does not answer, it keeps a card that the ledger will not charge again.

        Raises:
            AutoTopUpIsOff, IdempotencyConflict.
        """

        def decide() -> tuple[Sequence[Aggregate], TopUpStanding]:
            organisation = self._book.ledger.organisation(organisation_id)
            organisation.switch_off_auto_top_up(OffReason.ASKED, request)
            return [organisation], _standing(organisation)

        result = self._book.recording.record(decide, once, TopUpStanding)
        self._forget_card(organisation_id)
        return result

    def begin(self, organisation_id: str, payment_id: str, *, request: Request) -> Payment | None:
        """Ask for a payment if credits are low and the brake allows one; return it for `Payments.attend`.

        The organisation's event and the payment's first are one append: of two that see the same low
        balance, one begins.
        """

        def decide() -> tuple[Sequence[Aggregate], _Begun]:
            organisation = self._book.ledger.organisation(organisation_id)
            organisation.lapse_holds(request)
            state = organisation.auto_top_up
            if state is None or not state.is_on or organisation.available >= state.terms.threshold:
                return [organisation], _Begun(None)
            try:
                terms = self._quoted(organisation, state.terms, request)
            except (InvalidInput, BillingIsCustom):
                organisation.switch_off_auto_top_up(OffReason.NOT_FOR_SALE, request)
                return [organisation], _Begun(None, is_on=False)
            last = self._last(state.last_payment_id)
            if organisation.top_up(payment_id, terms.total_minor, last, request) is None:
                return [organisation], _Begun(None, organisation.has_auto_top_up)
            payment = Payment.request(
                payment_id,
                organisation_id,
                terms,
                gateway=self._book.payment(state.card_of).terms.gateway,
                quote_id=None,
                request=request,
                charged_to=state.card_of,
            )
            return [organisation, payment], _Begun(payment_id)

        begun = self._book.recording.record(decide, None, _Begun).recorded
        if not begun.is_on:
            self._forget_card(organisation_id)
        return None if begun.payment_id is None else self._book.payment(begun.payment_id)

    def card_of(self, organisation_id: str) -> str | None:
        """Return the payment whose card auto top-up charges; None while it is off."""
        state = self._book.ledger.organisation(organisation_id).auto_top_up
        return None if state is None or not state.is_on else state.card_of

    def forget_replaced(self, organisation_id: str, payment_id: str) -> None:
        """Have the gateway forget the card of a payment, if another one has taken its place.

        Two purchases may be under way at once; the card of the one that is paid last is charged.
        """
        if self.card_of(organisation_id) != payment_id:
            self._forget(payment_id)

    def _quoted(self, organisation: Organisation, terms: TopUpTerms, request: Request) -> Terms:
        prices = self._book.ledger.prices.at(request.at)
        return quote(
            "",
            organisation,
            PurchasePlan.PAY_AS_YOU_GO,
            terms.credits,
            prices=prices,
            now=request.at,
            top_up=terms,
        ).terms

    def _last(self, payment_id: str | None) -> LastTopUp:
        if payment_id is None:
            return LastTopUp.NONE
        status = self._book.payment(payment_id).status
        if status in UNPAID:
            return LastTopUp.UNDER_WAY
        return LastTopUp.PAID if status in PAID else LastTopUp.FAILED

    def _forget_card(self, organisation_id: str) -> None:
        state = self._book.ledger.organisation(organisation_id).auto_top_up
        if state is not None and not state.is_on:
            self._forget(state.card_of)

    def _forget(self, payment_id: str) -> None:
        paid = self._book.payment(payment_id)
        assert paid.gateway_payment_id is not None
        with suppress(GatewayError, GatewayUnknown):
            self._book.gateway(paid.terms.gateway).forget_card(paid.gateway_payment_id)


def _standing(organisation: Organisation) -> TopUpStanding:
    return TopUpStanding(organisation.organisation_id, organisation.version, organisation.has_auto_top_up)
