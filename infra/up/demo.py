"""Opens the demo organisations and records their grants and purchases, back-dated by months."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from functools import partial

import psycopg

from domain.credits.commands import CreditCommands
from domain.credits.errors import OrganisationAlreadyOpen
from domain.credits.events import GrantKind
from domain.credits.ledger import Ledger
from domain.shared.command_context import CommandContext
from domain.shared.event_store import IdempotencyKey
from domain.shared.money import Currency
from infra.clock import utc_now
from infra.identity.people import PostgresPeople
from infra.service.composition import credits_of, open_ledger
from infra.simulator.demo import (
    DEMO_ORGANISATIONS,
    DEMO_PEOPLE,
    TRIAL_CREDITS,
    Addition,
    AdditionKind,
    DemoOrganisation,
)

_ACTOR = "demo"


def open_demo(database_url: str) -> bool:
    """Open the missing demo organisations. Return whether none of them has usage yet."""
    _add_people(database_url)
    ledger = open_ledger(database_url)
    commands = credits_of(ledger).commands
    try:
        now = utc_now()
        for organisation in DEMO_ORGANISATIONS:
            _open(commands, organisation, now)
        return not any(_has_usage(ledger, organisation) for organisation in DEMO_ORGANISATIONS)
    finally:
        ledger.close()


def _add_people(database_url: str) -> None:
    """Store the names of the demo people. Keep people who were renamed or erased as they are."""
    people = PostgresPeople(partial(psycopg.connect, database_url, autocommit=True))
    known = people.names(list(DEMO_PEOPLE))
    for user_id, name in DEMO_PEOPLE.items():
        if known.of(user_id) == user_id:
            people.put(user_id, name, None, utc_now())


def _open(commands: CreditCommands, organisation: DemoOrganisation, now: datetime) -> None:
    # An earlier start may have stopped half-way. The idempotency key records each addition once.
    with suppress(OrganisationAlreadyOpen):
        commands.open_organisation(
            organisation.id,
            time_zone=organisation.time_zone,
            currency=Currency(organisation.currency),
            trial_credits=TRIAL_CREDITS,
            context=_context(organisation.opened_at(now), "open"),
        )
    for number, addition in enumerate(organisation.additions):
        _add(commands, organisation, addition, number, now)


def _add(
    commands: CreditCommands, organisation: DemoOrganisation, addition: Addition, number: int, now: datetime
) -> None:
    cause = f"demo-addition-{number}"
    idempotency_key = IdempotencyKey(f"demo {organisation.id}", cause, b"demo")
    context = _context(addition.at(organisation.time_zone, now), cause)
    if addition.kind is AdditionKind.PURCHASE:
        commands.record_purchase(
            organisation.id,
            addition.credits,
            payment_id=addition.payment_id,
            order_id=addition.order_id,
            gateway=addition.gateway,
            context=context,
            idempotency_key=idempotency_key,
        )
    else:
        commands.grant(
            organisation.id,
            addition.credits,
            kind=GrantKind(addition.kind.value),
            reason=addition.reason,
            context=context,
            idempotency_key=idempotency_key,
        )


def _has_usage(ledger: Ledger, organisation: DemoOrganisation) -> bool:
    added = TRIAL_CREDITS + sum(addition.credits for addition in organisation.additions)
    return ledger.organisation(organisation.id).balance != added


def _context(at: datetime, cause: str) -> CommandContext:
    return CommandContext(at, _ACTOR, cause)
