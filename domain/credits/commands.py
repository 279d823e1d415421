"""Commands on an organisation's credits, plan and settings. Each one is recorded at most once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, cast

from domain.credits.audit_events import AuditEvent
from domain.credits.charge_history import ChargeHistory
from domain.credits.command_result import CommandResult, result_of
from domain.credits.errors import ChargeNotFound, OrganisationAlreadyOpen, PurchaseAlreadyRecorded
from domain.credits.events import ChargeRefunded, CreditsPurchased, GrantKind, UsageCharged
from domain.credits.ledger import Ledger
from domain.credits.organisation import Organisation
from domain.credits.refund_allocation import lot_opened_by
from domain.pricing.plans import Plan
from domain.shared.aggregate import Aggregate
from domain.shared.command_context import CommandContext
from domain.shared.command_runner import RecordedResult
from domain.shared.errors import InvalidInput
from domain.shared.event_store import IdempotencyKey
from domain.shared.money import Currency, cost_of

TRIAL_CREDITS: Final = 200
ORGANISATION_ID_MAX_LENGTH: Final = 64


class CreditCommands:
    """Commands on credits, plans and settings. Each method reads the newest state, decides and records."""

    def __init__(self, ledger: Ledger, charge_history: ChargeHistory) -> None:
        self.ledger = ledger
        self._charge_history = charge_history

    def open_organisation(
        self,
        organisation_id: str,
        *,
        context: CommandContext,
        time_zone: str = "UTC",
        currency: Currency = Currency.USD,
        price_millionths: int | None = None,
        trial_credits: int = TRIAL_CREDITS,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Open an organisation on the Trial plan.

        Raises:
            InvalidInput: a bad id, time zone, price or number of credits.
            OrganisationAlreadyOpen: it is open already.
            IdempotencyConflict: the key was used for another request.
            StoreUnavailable: the database cannot be reached.
        """
        check_organisation_id(organisation_id)
        if price_millionths is None:
            price_millionths = self.ledger.prices.at(context.at).of(currency).credit_price_millionths

        def decide() -> tuple[Sequence[Aggregate], CommandResult]:
            organisation = Organisation.open(
                organisation_id,
                time_zone=time_zone,
                currency=currency,
                price_millionths=price_millionths,
                trial_credits=trial_credits,
                context=context,
            )
            return [organisation], result_of(organisation, credits_count=trial_credits)

        return self.ledger.runner.run(
            decide, idempotency_key, CommandResult, on_version_conflict=OrganisationAlreadyOpen
        )

    def grant(
        self,
        organisation_id: str,
        credits_count: int,
        *,
        kind: GrantKind,
        reason: str,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Give credits.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> CommandResult:
            organisation.grant(credits_count, kind, reason, context)
            return result_of(organisation, credits_count=credits_count)

        return self.ledger.change(organisation_id, decide, idempotency_key)

    def record_purchase(
        self,
        organisation_id: str,
        credits_count: int,
        *,
        payment_id: str,
        order_id: str,
        gateway: str,
        currency: Currency | None = None,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Record credits that were paid for, at the organisation's price of this moment.

        A payment adds its credits once, whatever key the request carries.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
            CurrencyMismatch: paid in another currency than the organisation's.
            PurchaseAlreadyRecorded: the payment has added its credits already.
        """

        def decide(organisation: Organisation) -> CommandResult:
            paid_in = currency or organisation.currency
            tax_per_cent = self.ledger.prices.at(context.at).of(paid_in).tax_per_cent
            cost = cost_of(credits_count, organisation.price_millionths, tax_per_cent)
            purchased = organisation.purchase(
                credits_count,
                payment_id=payment_id,
                order_id=order_id,
                gateway=gateway,
                unit_price_millionths=organisation.price_millionths,
                cost=cost,
                currency=paid_in,
                context=context,
            )
            event = cast("CreditsPurchased", purchased.event)
            return CommandResult(
                organisation.organisation_id,
                purchased.originator_version,
                organisation.balance,
                credits_count,
                event.amount_minor,
                event.tax_minor,
                event.currency.value,
                organisation.available,
            )

        return self.ledger.change(
            organisation_id, decide, idempotency_key, on_duplicate_key=PurchaseAlreadyRecorded
        )

    def refund_charge(
        self,
        organisation_id: str,
        charge: int,
        credits_count: int | None,
        *,
        reason: str,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Return credits of a charge, named by its version; all that is left of it without a number.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
            ChargeNotFound: the version is not a charge.
            RefundExceedsCharge: less than that is left of the charge.
        """

        def decide(organisation: Organisation) -> CommandResult:
            charged = self.ledger.event_of(organisation, charge)
            if charged is None or not isinstance(charged.event, UsageCharged):
                raise ChargeNotFound(f"event {charge} of {organisation_id} is not a charge")
            origins = (
                self.ledger.event_of(organisation, allocation.lot) for allocation in charged.event.draws
            )
            refunded = organisation.refund(
                charged,
                credits_count,
                earlier_refunds=[
                    cast("ChargeRefunded", envelope.event)
                    for envelope in self._charge_history.refunds_of(organisation.id, charge)
                ],
                opened_lots=[lot for origin in origins if origin for lot in lot_opened_by(origin)],
                reason=reason,
                context=context,
            )
            return result_of(organisation, credits_count=cast("ChargeRefunded", refunded.event).credits)

        return self.ledger.change(organisation_id, decide, idempotency_key)

    def change_price(
        self,
        organisation_id: str,
        price_millionths: int,
        *,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Set the price of one credit, in millionths of the currency unit.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """
        return self._apply(
            organisation_id, lambda it: it.change_price(price_millionths, context), idempotency_key
        )

    def change_plan(
        self,
        organisation_id: str,
        plan: Plan,
        *,
        expires_at: datetime | None = None,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Change the plan.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """
        if expires_at is not None and expires_at.tzinfo is None:
            raise InvalidInput("expires_at", "the end of a plan needs its zone, such as 2027-01-01T00:00:00Z")
        if expires_at is not None and expires_at <= context.at:
            raise InvalidInput("expires_at", "the plan would have ended already")
        return self._apply(
            organisation_id, lambda it: it.change_plan(plan, expires_at, context), idempotency_key
        )

    def change_time_zone(
        self,
        organisation_id: str,
        time_zone: str,
        *,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Set the zone of the days and months of later charges; past months do not change.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """
        return self._apply(
            organisation_id, lambda it: it.change_time_zone(time_zone, context), idempotency_key
        )

    def set_low_balance_threshold(
        self,
        organisation_id: str,
        threshold: int,
        *,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Record an event whenever fewer credits than this are available; 0: never.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
        """
        return self._apply(
            organisation_id, lambda it: it.set_low_balance_threshold(threshold, context), idempotency_key
        )

    def record_audit_event(
        self, organisation_id: str, event: AuditEvent, *, idempotency_key: IdempotencyKey | None = None
    ) -> RecordedResult[CommandResult]:
        """Record who changed something other than credits.

        Raises:
            OrganisationNotFound, IdempotencyConflict, StoreUnavailable.
        """
        return self._apply(organisation_id, lambda it: it.record_audit_event(event), idempotency_key)

    def expire_pro(self, organisation_id: str, *, context: CommandContext) -> RecordedResult[CommandResult]:
        """Change from Pro to Pay As You Go if Pro has reached its end.

        Raises:
            OrganisationNotFound, StoreUnavailable.
        """
        return self._apply(organisation_id, lambda it: it.expire_pro(context), None)

    def _apply(
        self,
        organisation_id: str,
        decision: Callable[[Organisation], object],
        idempotency_key: IdempotencyKey | None,
    ) -> RecordedResult[CommandResult]:
        """Run and record a decision that moves no credits."""

        def decide(organisation: Organisation) -> CommandResult:
            decision(organisation)
            return result_of(organisation)

        return self.ledger.change(organisation_id, decide, idempotency_key)


def check_organisation_id(organisation_id: str) -> None:
    """Check an organisation id, which the platform chooses: 1 to 64 printable characters.

    Raises:
        InvalidInput: empty, too long, or with a control character.
    """
    if not 1 <= len(organisation_id) <= ORGANISATION_ID_MAX_LENGTH or not organisation_id.isprintable():
        raise InvalidInput(
            "organisation_id",
            f"an organisation id has 1 to {ORGANISATION_ID_MAX_LENGTH} printable characters",
        )
