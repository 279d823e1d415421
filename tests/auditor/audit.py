"""The audit: compares records, accounts and rates with the database and the dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg

from tests.auditor.accounts import Account, Rates
from tests.auditor.dead_letters import compare_letters
from tests.auditor.differences import compare_tables
from tests.auditor.history import HistoryAudit, StoredEvent, read_histories, read_log_end, read_snapshots
from tests.auditor.statement_rows import Statement, Table
from tests.auditor.tables import (
    read_consumer_positions,
    read_parked,
    read_projection_positions,
    read_table,
    read_transactions,
)
from tests.auditor.verdicts import Verdicts, judge
from tests.auditor.wire import Record

Connection = psycopg.Connection[Any]


class Auditor:
    """Computes the expected state of the ledger from one usage topic and a list of accounts."""

    def __init__(
        self, topic: str, records: Sequence[Record], accounts: Iterable[Account], rates: Rates
    ) -> None:
        self.verdicts: Verdicts = judge(records)
        self._topic = topic
        self._accounts = {account.organisation_id: account for account in accounts}
        self._rates = rates

    def differences(self, connection: Connection, letters: Sequence[Record]) -> list[str]:
        """Return all differences, after all messages were processed."""
        return [
            *compare_letters(self.verdicts.refused, letters, self._topic),
            *self._compare_positions(connection),
            *self._compare_parked(connection),
            *self._compare_statements(connection),
        ]

    def _compare_positions(self, connection: Connection) -> list[str]:
        expected: Table = {(part,): {"next_offset": end} for part, end in self.verdicts.ends.items()}
        found = read_consumer_positions(connection, self._topic)
        empty = [key for key, row in found.items() if key not in expected and row["next_offset"] == 0]
        for key in empty:
            del found[key]
        return compare_tables("consumer_positions", expected, found)

    def _compare_parked(self, connection: Connection) -> list[str]:
        expected: Table = {}
        for accepted in self.verdicts.accepted.values():
            if accepted.message.organisation_id not in self._accounts:
                expected[accepted.place] = {
                    "organisation_id": accepted.message.organisation_id,
                    "record_key": accepted.record.key,
                    "record_value": accepted.record.value,
                }
        return compare_tables("parked_messages", expected, read_parked(connection))

    def _compare_statements(self, connection: Connection) -> list[str]:
        histories = read_histories(connection)
        names = {stream: _name(events) for stream, events in histories.items()}
        by_name = {names[stream]: stream for stream in histories}
        differences = _compare_names(names, self._accounts.keys())
        statement = Statement.empty()
        balances: Table = {}
        additions: Table = {}
        snapshots: dict[UUID, dict[int, list[Any]]] = {}
        for (stream, version), snapshot in read_snapshots(connection).items():
            snapshots.setdefault(stream, {})[version] = snapshot
        for name, accepted in self.verdicts.of(self._accounts).items():
            if name not in by_name:
                continue  # reported above
            stream = by_name[name]
            audit = HistoryAudit(
                self._accounts[name], accepted, histories[stream], snapshots.get(stream, {}), self._rates
            )
            audit.run(statement)
            differences += audit.differences
            balances[name,] = audit.balance_row
            additions |= audit.additions
        log_end = read_log_end(connection)
        return [
            *differences,
            *compare_tables("balances", balances, read_table(connection, "balances", names)),
            *compare_tables("usage", statement.runs, read_transactions(connection, "usage", names)),
            *compare_tables("additions", additions, read_transactions(connection, "addition", names)),
            *compare_tables("usage_months", statement.months, read_table(connection, "usage_months", names)),
            *compare_tables("usage_days", statement.days, read_table(connection, "usage_days", names)),
            *compare_tables("event_usage", statement.events, read_table(connection, "event_usage", names)),
            *compare_tables(
                "event_totals", statement.event_totals, read_table(connection, "event_totals", names)
            ),
            *compare_tables(
                "positions",
                {
                    (name,): {"position": log_end}
                    for name in ("balance", "payment_flags", "payments", "statement")
                },
                read_projection_positions(connection),
            ),
        ]


def _name(events: Sequence[StoredEvent]) -> str:
    first = events[0]
    return str(first.event[3]) if first.topic == "organisation_opened.v1" else f"? {first.topic}"


def _compare_names(names: dict[UUID, str], accounts: Iterable[str]) -> list[str]:
    found, expected = sorted(names.values()), set(accounts)
    twice = {name for name, following in pairwise(found) if name == following}
    return [
        *(f"history of {name}: there are two" for name in sorted(twice)),
        *(f"history of {name}: nobody opened it" for name in sorted(set(found) - expected)),
        *(f"history of {name} is missing" for name in sorted(expected - set(found))),
    ]
