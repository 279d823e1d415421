"""The list of flags of all organisations: open and settled flags, and its speed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from psycopg.rows import dict_row

from domain.payments.events import Flag, FlagKey
from domain.payments.refunds import AttemptRefund
from domain.shared.errors import InvalidInput, InvariantViolation
from infra.service.composition import open_ledger
from projections.audit import invariants
from projections.audit.row_comparison import compare_with_log
from projections.engine.rebuild import rebuild
from projections.payments import flag_queries
from projections.payments.flag_queries import FlagPage
from projections.registry import projections_named
from tests.integration.payments.test_payments import PaymentEnvironment
from tests.integration.projections.conftest import Ledger

MANY = 20_000


@pytest.fixture
def shops(ledger: Ledger) -> Iterator[list[PaymentEnvironment]]:
    """Two organisations with flags: one was settled by staff, one by a refund."""
    with closing(open_ledger(ledger.service)) as opened:
        shops = [PaymentEnvironment(opened, "org-1"), PaymentEnvironment(opened, "org-2")]
        for payment_env in shops:
            for amount_minor in (1, 2, 3):
                payment_env.pay(payment_env.order(), amount_minor=amount_minor)
        yield shops


def key_of(payment_env: PaymentEnvironment, ledger: Ledger, amount_minor: int) -> tuple[str, FlagKey]:
    cursor = ledger.connection.cursor(row_factory=dict_row)
    row = cursor.execute(
        "SELECT payment_id, gateway_payment_id FROM projections.payment_flags"
        " JOIN projections.balances USING (stream) WHERE organisation_id = %s AND amount_minor = %s",
        [payment_env.name, amount_minor],
    ).fetchone()
    assert row is not None
    return row["payment_id"], FlagKey(Flag.AMOUNT_DIFFERS, row["gateway_payment_id"], amount_minor)


def settle_flags(shops: list[PaymentEnvironment], ledger: Ledger) -> None:
    """Settle one flag, and refund the money of another."""
    ledger.project()
    payment_id, key = key_of(shops[0], ledger, 2)
    shops[0].payments.settle_flag("org-1", payment_id, key, "kept", context=shops[0].request())
    payment_id, key = key_of(shops[1], ledger, 3)
    shops[1].give_back(shops[1].payments.payment(payment_id), AttemptRefund(key.gateway_payment_id))
    ledger.project(batch_size=1)


def listed(page: FlagPage) -> list[tuple[str, int, bool]]:
    return [(row.organisation_id, row.amount_minor, row.is_open) for row in page.flags]


ALL = [
    ("org-2", 2, True),
    ("org-2", 1, True),
    ("org-1", 3, True),
    ("org-1", 1, True),
    ("org-2", 3, False),
    ("org-1", 2, False),
]


def test_open_flags_first_and_newest_first(ledger: Ledger, shops: list[PaymentEnvironment]) -> None:
    settle_flags(shops, ledger)
    page = flag_queries.flags(ledger.connection, None, 100)
    assert listed(page) == ALL
    assert page.next_cursor is None
    first = page.flags[0]
    assert (first.flag, first.gateway, first.currency, first.total_minor) == (
        Flag.AMOUNT_DIFFERS,
        "bookpay",
        "INR",
        177_000,
    )
    assert [row.is_refundable for row in page.flags] == [True] * 4 + [False] * 2
    assert [bool(row.refund_id) for row in page.flags] == [False] * 4 + [True, False]
    assert page.flags[-1].settled_by == "u-1"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_pages_contain_the_whole_list(ledger: Ledger, shops: list[PaymentEnvironment], size: int) -> None:
    settle_flags(shops, ledger)
    found, cursor = [], None
    while True:
        page = flag_queries.flags(ledger.connection, cursor, size)
        found += listed(page)
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == ALL


def test_a_cursor_of_another_list_is_refused(ledger: Ledger) -> None:
    assert flag_queries.flags(ledger.connection, None, 1).flags == []
    with pytest.raises(InvalidInput):
        flag_queries.flags(ledger.connection, "bm90IGEgY3Vyc29y", 1)


def test_one_batch_may_raise_and_settle_a_flag(ledger: Ledger, shops: list[PaymentEnvironment]) -> None:
    settle_flags(shops, ledger)
    before = flag_rows(ledger)
    rebuild(ledger.owner, projections_named(["payment_flags"]))
    assert flag_rows(ledger) == before
    assert invariants.check(ledger.connection) == []
    assert compare_with_log(ledger.owner) == []


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE projections.payment_flags SET settled_at = now() WHERE settled_at IS NULL",
        "UPDATE projections.payment_flags SET settled_at = NULL",
        "DELETE FROM projections.payment_flags WHERE amount_minor = 1",
        "UPDATE projections.payment_flags SET amount_minor = 7 WHERE amount_minor = 1",
    ],
)
def test_a_changed_row_is_found(ledger: Ledger, shops: list[PaymentEnvironment], harm: str) -> None:
    settle_flags(shops, ledger)
    ledger.connection.execute(harm.encode())
    assert {finding.check for finding in invariants.check(ledger.connection)} == {"flag"}


def test_a_flag_that_was_never_raised_is_not_settled(ledger: Ledger, shops: list[PaymentEnvironment]) -> None:
    ledger.project()
    payment_id, key = key_of(shops[0], ledger, 1)
    ledger.connection.execute("DELETE FROM projections.payment_flags")
    shops[0].payments.settle_flag("org-1", payment_id, key, "kept", context=shops[0].request())
    with pytest.raises(InvariantViolation):
        ledger.project()


def test_the_list_is_read_from_its_indexes_with_many_settled_flags(
    ledger: Ledger, shops: list[PaymentEnvironment]
) -> None:
    ledger.project()
    ledger.connection.execute(
        f"""
        INSERT INTO projections.payment_flags
        SELECT stream, payment_id, flag, gateway_payment_id, 1000 + number, currency, flagged_at, now(), NULL,
            NULL, 1000 + number
        FROM projections.payment_flags, generate_series(1, {MANY}) AS number
        WHERE amount_minor = 1
        """.encode()
    )
    ledger.connection.execute("ANALYZE projections.payment_flags")
    plan = explained(ledger, settled_before=0)
    assert "payment_flags_open_idx" in plan
    assert "payment_flags_settled_idx" in plan
    assert "Seq Scan on payment_flags" not in plan
    page = flag_queries.flags(ledger.connection, None, 10)
    assert [row.is_open for row in page.flags] == [True] * 6 + [False] * 4


def explained(ledger: Ledger, **settled: Any) -> str:
    cursor = ledger.connection.cursor()
    asked = {"open_before": 2**63 - 1, "limit": 26, **settled}
    rows = cursor.execute(f"EXPLAIN {flag_queries._FLAGS}".encode(), asked).fetchall()
    return "\n".join(str(next(iter(row.values() if isinstance(row, dict) else row))) for row in rows)


def flag_rows(ledger: Ledger) -> list[dict[str, Any]]:
    cursor = ledger.connection.cursor(row_factory=dict_row)
    return cursor.execute('SELECT * FROM projections.payment_flags ORDER BY "position"').fetchall()
