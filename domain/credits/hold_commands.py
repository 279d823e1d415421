"""Commands on holds, each recorded at most once, and what a run would cost."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

import msgspec

from domain.credits.charge_history import ChargeHistory
from domain.credits.command_result import CommandResult, hold_result_of, result_of
from domain.credits.errors import HoldClosed, HoldNotFound
from domain.credits.events import HoldPlaced
from domain.credits.holds import HOLD_PREFIX, Hold, HoldRequest
from domain.credits.ledger import Ledger
from domain.credits.lots import plan_draws
from domain.credits.organisation import Organisation
from domain.pricing.rate_card import RateCard, UsageType
from domain.shared.command_context import CommandContext
from domain.shared.command_runner import RecordedResult
from domain.shared.errors import InvalidInput
from domain.shared.event_store import IdempotencyKey

HOLD_DURATION_DEFAULT: Final = timedelta(hours=1)
_VERSION: Final = re.compile(r"[1-9]\d{0,17}", re.ASCII)


class QuotedDraw(msgspec.Struct, frozen=True):
    """Credits that a run would draw from a lot, named by the version of the event that opened it."""

    lot: int
    kind: str
    credits: int


class Quote(msgspec.Struct, frozen=True):
    """What a run would cost: credits by lot in spend order, what no lot covers, and what would remain.

    `draws` and `overdraft` are computed from the balance; `available` is the balance minus open holds.
    """

    credits: int
    draws: list[QuotedDraw]
    overdraft: int
    available: int
    available_after: int


class HoldCommands:
    """Commands on holds. Each method reads the newest state, decides and records."""

    def __init__(self, ledger: Ledger, charge_history: ChargeHistory) -> None:
        self.ledger = ledger
        self._charge_history = charge_history

    def place_hold(
        self,
        organisation_id: str,
        wanted: HoldRequest,
        *,
        duration: timedelta = HOLD_DURATION_DEFAULT,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Set credits aside for a run. A run has one hold; the same request returns it while it is open.

        Raises:
            OrganisationNotFound, InvalidInput, IdempotencyConflict, StoreUnavailable.
            InsufficientCredits: fewer credits are available than requested, or none.
            HoldConflict: the run has an open hold of another request.
            HoldClosed: the run has already used its one hold.
        """

        def decide(organisation: Organisation) -> CommandResult:
            reported = self._charge_history.photos_reported(
                organisation.id, wanted.run_id, organisation.version
            )
            hold = organisation.place_hold(wanted, context.at + duration, context, reported=reported)
            return hold_result_of(organisation, hold, "open")

        return self.ledger.change(organisation_id, decide, idempotency_key, on_duplicate_key=HoldClosed)

    def settle_hold(
        self,
        organisation_id: str,
        hold_id: str,
        photos: int,
        *,
        usage_type: UsageType | None = None,
        rates: RateCard,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """End a run with this many photos in all: charge what no message has reported, free the rest.

        Raises:
            OrganisationNotFound, IdempotencyConflict, StoreUnavailable.
            InvalidInput: photos out of range, or the usage type is not given, and the hold does not tell it.
            HoldNotFound: no hold has this id.
            HoldClosed: it was settled or released, or it has expired.
        """

        def decide(organisation: Organisation) -> CommandResult:
            hold = self._open_hold(organisation, hold_id, context)
            settled_type = usage_type or hold.request.usage_type or _only_type(hold)
            if settled_type is None:
                raise InvalidInput("usage_type", "the hold was not placed for a usage type: name it")
            ai_search = hold.request.ai_search
            balance = organisation.balance
            settled = organisation.settle_hold(
                hold_id,
                photos,
                usage_type=settled_type,
                ai_search=ai_search,
                rate_millionths=rates.rate_millionths(settled_type, ai_search, context.at),
                context=context,
            )
            return hold_result_of(
                organisation,
                hold,
                "settled",
                released=settled.released,
                charged=balance - organisation.balance,
            )

        return self.ledger.change(organisation_id, decide, idempotency_key, on_duplicate_key=HoldClosed)

    def release_hold(
        self,
        organisation_id: str,
        hold_id: str,
        *,
        context: CommandContext,
        idempotency_key: IdempotencyKey | None = None,
    ) -> RecordedResult[CommandResult]:
        """Give back what is left of a hold.

        Raises:
            OrganisationNotFound, IdempotencyConflict, StoreUnavailable.
            HoldNotFound: no hold has this id.
            HoldClosed: it was settled or released, or it has expired.
        """

        def decide(organisation: Organisation) -> CommandResult:
            hold = self._open_hold(organisation, hold_id, context)
            released = organisation.release_hold(hold_id, context)
            return hold_result_of(organisation, hold, "released", released=released.released)

        return self.ledger.change(organisation_id, decide, idempotency_key)

    def expire_holds(self, organisation_id: str, *, context: CommandContext) -> RecordedResult[CommandResult]:
        """Free the holds of an organisation that are past their end.

        Raises:
            OrganisationNotFound, StoreUnavailable.
        """

        def decide(organisation: Organisation) -> CommandResult:
            organisation.expire_holds(context)
            return result_of(organisation)

        return self.ledger.change(organisation_id, decide, None)

    def _open_hold(self, organisation: Organisation, hold_id: str, context: CommandContext) -> Hold:
        organisation.expire_holds(context)
        try:
            return organisation.hold_book.find(hold_id)
        except HoldNotFound:
            number = hold_id.removeprefix(HOLD_PREFIX)
            placed = self.ledger.event_of(organisation, int(number)) if _VERSION.fullmatch(number) else None
            if (
                placed is not None
                and isinstance(placed.event, HoldPlaced)
                and placed.event.hold_id == hold_id
            ):
                raise HoldClosed(hold_id=hold_id) from None
            raise


def quote(ledger: Ledger, organisation_id: str, credits_count: int, *, at: datetime) -> Quote:
    """Return the lots that a run of this many credits would draw on now, and what would remain.

    Holds that are past their end at `at` do not count. Nothing is recorded.

    Raises:
        OrganisationNotFound, StoreUnavailable.
    """
    organisation = ledger.organisation(organisation_id)
    organisation.expire_holds(CommandContext(at, None, "quote"))
    draws, overdraft = plan_draws(organisation.lots, credits_count)
    kinds = {lot.number: lot.kind for lot in organisation.lots}
    return Quote(
        credits_count,
        [QuotedDraw(draw.lot, kinds[draw.lot].name.lower(), draw.credits) for draw in draws],
        overdraft,
        organisation.available,
        organisation.available - credits_count,
    )


def _only_type(hold: Hold) -> UsageType | None:
    """Return the usage type of a hold's messages, if they are all of one."""
    return next(iter(hold.photos)) if len(hold.photos) == 1 else None
