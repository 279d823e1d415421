"""Search of organisations by id prefix, for callers who may see all organisations."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import convert

from domain.pricing.plans import Plan
from domain.shared.money import Currency
from projections.connection import Connection
from projections.query.sql import check_limit, fetch

# Bytewise comparison like the index's: the same in every locale of the database.
_FIND: Final = """
    SELECT organisation_id, balance, on_hold, plan, currency, time_zone FROM projections.balances
    WHERE organisation_id ~>=~ %(start)s AND organisation_id ~>~ %(after)s
        AND starts_with(organisation_id, %(start)s)
    ORDER BY organisation_id USING ~<~ LIMIT %(limit)s
"""


class OrganisationMatch(msgspec.Struct, frozen=True):
    """An organisation in a search result."""

    organisation_id: str
    balance: int
    on_hold: int
    plan: Plan
    currency: Currency
    time_zone: str

    @property
    def available(self) -> int:
        """Credits a new run may use."""
        return self.balance - self.on_hold


def find_organisations(connection: Connection, start: str, after: str, limit: int) -> list[OrganisationMatch]:
    """Return organisations whose id starts with `start` and follows `after`, sorted by id.

    Raises:
        InvalidInput: `limit` outside 1 to 500.
    """
    check_limit(limit)
    rows = fetch(connection, _FIND, start=start, after=after, limit=limit)
    return [convert(row, OrganisationMatch) for row in rows]
