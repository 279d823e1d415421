"""Opens organisations in bulk: writes the events that the use cases would record, in one COPY."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import psycopg

from domain.credits.events import GrantKind
from domain.credits.organisation import Organisation
from domain.pricing.price_book import PUBLISHED_PRICES
from domain.shared.command_context import CommandContext
from domain.shared.money import Currency
from infra.event_store.mapper import COPY_EVENTS, LedgerMapper, copy_rows

TRIAL_CREDITS: Final = 200
GRANTED_CREDITS: Final = 1_000_000_000
EVENTS_EACH: Final = 3


def open_organisations(conninfo: str, organisation_ids: Sequence[str]) -> None:
    """Open organisations, each with trial credits and a grant too large for any case to use up."""
    mapper = LedgerMapper()
    request = CommandContext(datetime.now(UTC), "u-benchmark", "benchmark")
    rows = []
    for organisation_id in organisation_ids:
        organisation = Organisation.open(
            organisation_id,
            time_zone="UTC",
            currency=Currency.USD,
            price_millionths=PUBLISHED_PRICES.of(Currency.USD).credit_price_millionths,
            trial_credits=TRIAL_CREDITS,
            context=request,
        )
        organisation.grant(GRANTED_CREDITS, GrantKind.ADMIN, "benchmark", request)
        rows += [mapper.to_stored_event(envelope) for envelope in organisation.collect_events()]
    assert len(rows) == EVENTS_EACH * len(organisation_ids)
    with psycopg.connect(conninfo) as connection, connection.cursor().copy(COPY_EVENTS) as copy:
        copy.write(copy_rows(rows))
