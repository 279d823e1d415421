"""The use cases of auto top-up: its settings, and the purchases that it begins (decision 0011)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from domain.credits.auto_top_up import LastTopUpStatus, OffReason, TopUpTerms
from domain.credits.organisation import Organisation
from domain.payments.errors import BilledByAgreement, GatewayNotFound
from domain.payments.gateway import GatewayError
from domain.payments.payment import PAID_STATUSES, UNPAID_STATUSES, Payment
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
        """Change what is bought by itself, and when.

        Raises:
            AutoTopUpNotOn, IdempotencyConflict, BilledByAgreement.
            InvalidInput: out of range, or more than was agreed to pay for.
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
        """Buy nothing by itself any more, and have the gateway forget the card.

        If the gateway does not answer, it keeps a card that the ledger will not charge again.

        Raises:
            AutoTopUpNotOn, IdempotencyConflict.
        """

        def decide() -> tuple[Sequence[Aggregate], AutoTopUpResult]:
            organisation = self._repository.ledger.organisation(organisation_id)
            organisation.switch_off_auto_top_up(OffReason.ASKED, context)
            return [organisation], _result(organisation)

        result = self._repository.runner.run(decide, idempotency_key, AutoTopUpResult)
        self._forget_card(organisation_id)
        return result

    def begin(self, organisation_id: str, payment_id: str, *, context: CommandContext) -> Payment | None:
        """Ask for a payment if credits are low and the brake allows one; return it for `Payments.follow_up`.

        The organisation's event and the payment's first are one append: of two that see the same low
        balance, one begins.
        """

        def decide() -> tuple[Sequence[Aggregate], _StartedTopUp]:
            organisation = self._repository.ledger.organisation(organisation_id)
            organisation.expire_holds(context)
            state = organisation.auto_top_up
            if state is None or not state.is_on or organisation.available >= state.terms.threshold:
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
            self._forget_card(organisation_id)
        return None if begun.payment_id is None else self._repository.payment(begun.payment_id)

    def find_card_payment_id(self, organisation_id: str) -> str | None:
        """Return the payment whose card auto top-up charges; None while it is off."""
        state = self._repository.ledger.organisation(organisation_id).auto_top_up
        return None if state is None or not state.is_on else state.card_of

    def forget_replaced_card(self, organisation_id: str, payment_id: str) -> None:
        """Have the gateway forget the card of a payment, if another one has taken its place.

        Two purchases may be under way at once; the card of the one that is paid last is charged.
        """
        if self.find_card_payment_id(organisation_id) != payment_id:
            self._forget(payment_id)

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

    def _forget_card(self, organisation_id: str) -> None:
        state = self._repository.ledger.organisation(organisation_id).auto_top_up
        if state is not None and not state.is_on:
            self._forget(state.card_of)

    def _forget(self, payment_id: str) -> None:
        paid = self._repository.payment(payment_id)
        assert paid.gateway_payment_id is not None
        with suppress(GatewayError, GatewayNotFound):
            self._repository.gateway(paid.terms.gateway).forget_card(paid.gateway_payment_id)


def _result(organisation: Organisation) -> AutoTopUpResult:
    return AutoTopUpResult(organisation.organisation_id, organisation.version, organisation.has_auto_top_up)
