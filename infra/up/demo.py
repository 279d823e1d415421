"""Opens the demo's organisations and records what they were given and bought, back-dated by months."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from functools import partial

import psycopg

from domain.credits.errors import OrganisationAlreadyOpen
from domain.credits.events import GrantKind
from domain.credits.ledger import Ledger
from domain.shared.command_context import CommandContext
from domain.shared.event_store import IdempotencyKey
from domain.shared.money import Currency
from infra.clock import utc_now
from infra.identity.people import PostgresPeople
from infra.service.composition import open_ledger
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
    """Open what is not open yet; tell whether the organisations are still without usage."""
    _name_people(database_url)
    ledger = open_ledger(database_url)
    try:
        now = utc_now()
        for organisation in DEMO_ORGANISATIONS:
            _open(ledger, organisation, now)
        return not any(_has_usage(ledger, organisation) for organisation in DEMO_ORGANISATIONS)
    finally:
        ledger.close()


def _name_people(database_url: str) -> None:
    """Tell what the demo's people are called; whom somebody named otherwise or erased stays as they are."""
    people = PostgresPeople(partial(psycopg.connect, database_url, autocommit=True))
    known = people.names(list(DEMO_PEOPLE))
    for user_id, name in DEMO_PEOPLE.items():
        if known.of(user_id) == user_id:
            people.put(user_id, name, None, utc_now())


def _open(ledger: Ledger, organisation: DemoOrganisation, now: datetime) -> None:
    # A start before this one may have ended in the middle; each addition counts once anyway.
    with suppress(OrganisationAlreadyOpen):
        ledger.open_organisation(
            organisation.id,
            time_zone=organisation.time_zone,
            currency=Currency(organisation.currency),
            trial_credits=TRIAL_CREDITS,
            context=_request(organisation.opened_at(now), "open"),
        )
    for number, addition in enumerate(organisation.additions):
        _add(ledger, organisation, addition, number, now)


def _add(
    ledger: Ledger, organisation: DemoOrganisation, addition: Addition, number: int, now: datetime
) -> None:
    cause = f"demo-addition-{number}"
    idempotency_key = IdempotencyKey(f"demo {organisation.id}", cause, b"demo")
    request = _request(addition.at(organisation.time_zone, now), cause)
    if addition.kind is AdditionKind.PURCHASE:
        ledger.record_purchase(
            organisation.id,
            addition.credits,
            payment_id=addition.payment_id,
            order_id=addition.order_id,
            gateway=addition.gateway,
            context=request,
            idempotency_key=idempotency_key,
        )
    else:
        ledger.grant(
            organisation.id,
            addition.credits,
            kind=GrantKind(addition.kind.value),
            reason=addition.reason,
            context=request,
            idempotency_key=idempotency_key,
        )


def _has_usage(ledger: Ledger, organisation: DemoOrganisation) -> bool:
    added = TRIAL_CREDITS + sum(addition.credits for addition in organisation.additions)
    return ledger.organisation(organisation.id).balance != added


def _request(at: datetime, cause: str) -> CommandContext:
    return CommandContext(at, _ACTOR, cause)
