"""Commands on auto top-up: its settings, and the purchases that it starts (decision 0011)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from domain.credits.auto_top_up import AutoTopUp, LastTopUpStatus, TopUpTerms
from domain.credits.auto_top_up_events import OffReason
from domain.credits.organisation import Organisation
from domain.payments.errors import BilledByAgreement, GatewayNotFound
from domain.payments.gateway import GatewayError
from domain.payments.payment import Payment
from domain.payments.payment_state import PAID_STATUSES, UNPAID_STATUSES
from domain.payments.quotes import PurchasePlan, quote
from domain.payments.repository import PaymentRepository
from domain.payments.terms import PaymentTerms
from domain.shared.aggregate import Aggregate
from domain.shared.command_context import CommandContext
from domain.shared.command_runner import RecordedResult
from domain.shared.errors import InvalidInput
from domain.shared.event_store import IdempotencyKey


class AutoTopUpResult(msgspec.Struct, frozen=True):
    """The answer to a command on auto top-up: `version` is the organisation's after it."""

    organisation_id: str
    version: int
    is_on: bool


class _StartedTopUp(msgspec.Struct, frozen=True):
    payment_id: str | None
    is_on: bool = True


class AutoTopUpPurchases:
    """Commands on auto top-up. Every method may raise OrganisationNotFound, StoreUnavailable."""

    def __init__(self, repository: PaymentRepository) -> None:
        self._repository = repository

    def change(
        self,
        organisation_id: str,
        terms: TopUpTerms,
        *,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[AutoTopUpResult]:
        """Change how many credits are bought, at which balance, and how often a day.

        Raises:
            AutoTopUpNotOn, IdempotencyConflict, BilledByAgreement.
            InvalidInput: out of range, or dearer than the amount that the payer agreed to.
        """

        def decide() -> tuple[Sequence[Aggregate], AutoTopUpResult]:
            organisation = self._repository.ledger.organisation(organisation_id)
            total_minor = self._quote_terms(organisation, terms, context).total_minor
            organisation.change_auto_top_up(terms, total_minor, context)
            return [organisation], _result(organisation)

        return self._repository.runner.run(decide, idempotency_key, AutoTopUpResult)

    def switch_off(
        self, organisation_id: str, *, context: CommandContext, idempotency_key: IdempotencyKey | None = None
    ) -> RecordedResult[AutoTopUpResult]:
        """Switch auto top-up off, and ask the gateway to forget the card.

        If the gateway does not answer, it keeps the card, but the ledger does not charge it again.

        Raises:
            AutoTopUpNotOn, IdempotencyConflict.
        """

        def decide() -> tuple[Sequence[Aggregate], AutoTopUpResult]:
            organisation = self._repository.ledger.organisation(organisation_id)
            organisation.switch_off_auto_top_up(OffReason.ASKED, context)
            return [organisation], _result(organisation)

        result = self._repository.runner.run(decide, idempotency_key, AutoTopUpResult)
        self._forget_card_if_off(organisation_id)
        return result

    def begin(self, organisation_id: str, payment_id: str, *, context: CommandContext) -> Payment | None:
        """Begin a payment if credits are low and the limits allow it; return it.

        `PaymentTracking.follow_up` then opens its order and charges the card. The organisation's event and
        the payment's first event are one append: if two processes see the same low balance, only one of them
        begins a payment.
        """

        def decide() -> tuple[Sequence[Aggregate], _StartedTopUp]:
            organisation = self._repository.ledger.organisation(organisation_id)
            organisation.expire_holds(context)
            state = active_auto_top_up(organisation)
            if state is None or organisation.available >= state.terms.threshold:
                return [organisation], _StartedTopUp(None)
            try:
                terms = self._quote_terms(organisation, state.terms, context)
            except (InvalidInput, BilledByAgreement):
                organisation.switch_off_auto_top_up(OffReason.NOT_FOR_SALE, context)
                return [organisation], _StartedTopUp(None, is_on=False)
            last = self._last_status(state.last_payment_id)
            if organisation.start_top_up(payment_id, terms.total_minor, last, context) is None:
                return [organisation], _StartedTopUp(None, organisation.has_auto_top_up)
            payment = Payment.request(
                payment_id,
                organisation_id,
                terms,
                gateway=self._repository.payment(state.card_of).terms.gateway,
                quote_id=None,
                context=context,
                card_payment_id=state.card_of,
            )
            return [organisation, payment], _StartedTopUp(payment_id)

        begun = self._repository.runner.run(decide, None, _StartedTopUp).value
        if not begun.is_on:
            self._forget_card_if_off(organisation_id)
        return None if begun.payment_id is None else self._repository.payment(begun.payment_id)

    def forget_card(self, payment_id: str) -> None:
        """Ask the gateway to forget the card that paid a payment. Nothing happens if it does not answer."""
        payment = self._repository.payment(payment_id)
        assert payment.gateway_payment_id is not None
        with suppress(GatewayError, GatewayNotFound):
            self._repository.gateway(payment.terms.gateway).forget_card(payment.gateway_payment_id)

    def _quote_terms(
        self, organisation: Organisation, terms: TopUpTerms, context: CommandContext
    ) -> PaymentTerms:
        prices = self._repository.ledger.prices.at(context.at)
        return quote(
            "",
            organisation,
            PurchasePlan.PAY_AS_YOU_GO,
            terms.credits,
            prices=prices,
            now=context.at,
            top_up=terms,
        ).terms

    def _last_status(self, payment_id: str | None) -> LastTopUpStatus:
        if payment_id is None:
            return LastTopUpStatus.NONE
        status = self._repository.payment(payment_id).status
        if status in UNPAID_STATUSES:
            return LastTopUpStatus.UNDER_WAY
        return LastTopUpStatus.PAID if status in PAID_STATUSES else LastTopUpStatus.FAILED

    def _forget_card_if_off(self, organisation_id: str) -> None:
        """Forget the card, unless auto top-up was switched on again meanwhile."""
        state = self._repository.ledger.organisation(organisation_id).auto_top_up
        if state is not None and not state.is_on:
            self.forget_card(state.card_of)


def active_auto_top_up(organisation: Organisation) -> AutoTopUp | None:
    """Return an organisation's auto top-up while it is on."""
    return organisation.auto_top_up if organisation.has_auto_top_up else None


def _result(organisation: Organisation) -> AutoTopUpResult:
    return AutoTopUpResult(organisation.organisation_id, organisation.version, organisation.has_auto_top_up)
