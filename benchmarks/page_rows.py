"""Rows for the pages of an organisation with many runs, as its projections would write them.

A few runs are real, written by the ingest and the projections, for the page that reads events. SQL writes
the other rows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import psycopg

from benchmarks.environment import BenchmarkEnvironment
from benchmarks.feeding import feed_all, start_position
from benchmarks.organisations import open_organisations
from benchmarks.traffic import Traffic, UsageRecord
from domain.shared.stream_keys import stream_id
from projections.connection import Connection
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS

ORGANISATION: Final = "org-read"
RUNS_AN_EVENT: Final = 10
RUNS_AN_EVENT_OF_THE_BUSIEST: Final = 40
"""One run in this many belongs to the same photo event, so this event has runs in every month."""
RUNS_A_PAYMENT: Final = 20
OPEN_HOLDS: Final = 50
_OVER_DAYS: Final = 365
"""All organisations cover the same months and days. A larger one has more runs in each."""
_CREDITS_A_RUN: Final = 25
_CHARGES_OF_A_RUN: Final = 200

# Every run has its own hold. Many photo events overlap, so that each lasts as long as in the smallest
# organisation.
_ROWS: Final = (
    """
    INSERT INTO projections.transactions
    SELECT %(stream)s::uuid, 'usage', 'run-' || number, 'usage', -%(credits)s, at, at, 'u-1',
        date_trunc('month', at AT TIME ZONE 'UTC')::date, %(credits)s, '{photo_processing}',
        ARRAY[event], 'Event ' || event, 3, 3, NULL
    FROM generate_series(0, %(runs)s - 1) AS number,
        LATERAL (SELECT %(now)s::timestamptz - number * %(over_days)s * interval '1 day' / %(runs)s)
            AS moment (at),
        LATERAL (SELECT CASE WHEN number %% %(busiest)s = 0 THEN 1
            ELSE 2 + number / (%(runs_an_event)s * %(side_by_side)s) * %(side_by_side)s
                + number %% %(side_by_side)s END) AS of (event)
    """,
    """
    INSERT INTO projections.transactions
    SELECT %(stream)s::uuid, 'addition', (1000 + number)::text, 'purchase', 500, at, at, 'u-1',
        NULL, NULL, NULL, NULL, NULL, 1000 + number, 1000 + number, convert_to(
            '{"type":"purchase","gateway":"razorpay","payment_id":"pay_' || number || '","order_id":"order_'
            || number || '","unit_price_millionths":18000,"amount_minor":900,"tax_minor":0,"currency":"USD"}',
            'UTF8')
    FROM generate_series(0, %(payments)s - 1) AS number,
        LATERAL (SELECT %(now)s::timestamptz - number * %(over_days)s * interval '1 day' / %(payments)s)
            AS moment (at)
    """,
    """
    INSERT INTO projections.payments (stream, payment_id, kind, status, gateway, order_id,
        gateway_payment_id, credits, unit_price_millionths, credits_minor, fee_minor, amount_minor, tax_minor,
        currency, price_version, refunded_credits, refunded_minor, open_refunds, requested_by,
        created_at, completed_at, version, "position", invoiced, billable)
    SELECT %(stream)s::uuid, 'payment-' || number, 'credits', 'completed', 'razorpay', 'order_' || number,
        'pay_' || number, 500, 18000, 900, 0, 900, 0, 'USD', 'published-1', 0, 0, 0, 'u-1',
        at, at, 3, 1, true, true
    FROM generate_series(0, %(payments)s - 1) AS number,
        LATERAL (SELECT %(now)s::timestamptz - number * %(over_days)s * interval '1 day' / %(payments)s)
            AS moment (at)
    """,
    """
    INSERT INTO ledger.invoice_documents
    SELECT 'CL/26/' || number, stream, 'payment-' || number, '', created_at, amount_minor, '{}'
    FROM projections.payments, LATERAL (SELECT substring(payment_id FROM 9)::bigint) AS counted (number)
    """,
    """
    INSERT INTO projections.holds
    SELECT stream, 'hold-' || number, reference,
        CASE WHEN number < %(open_holds)s THEN 'open' ELSE 'settled' END, 'all_or_nothing',
        %(credits)s, %(credits)s, 0, occurred_at, occurred_at + interval '10 years',
        occurred_at, %(runs)s - number
    FROM projections.transactions, LATERAL (SELECT substring(reference FROM 5)::bigint) AS counted (number)
    WHERE kind = 'usage' AND reference LIKE 'run-%%' AND reference NOT LIKE 'run-%%-%%'
    """,
    """
    TRUNCATE projections.usage_days, projections.event_usage, projections.event_totals,
        projections.usage_months
    """,
    """
    INSERT INTO projections.usage_days
    SELECT stream, (occurred_at AT TIME ZONE 'UTC')::date, month, -sum(credits), sum(photos)
    FROM projections.transactions WHERE kind = 'usage' GROUP BY 1, 2, 3
    """,
    """
    INSERT INTO projections.event_usage
    SELECT stream, month, event_ids[1], min(event_name), -sum(credits), sum(photos), count(*),
        min(occurred_at), max(occurred_at)
    FROM projections.transactions WHERE kind = 'usage' GROUP BY 1, 2, 3
    """,
    """
    INSERT INTO projections.event_totals
    SELECT stream, event_id, min(event_name), sum(credits), sum(photos), sum(runs),
        min(first_occurred_at), max(last_occurred_at)
    FROM projections.event_usage GROUP BY 1, 2
    """,
    """
    INSERT INTO projections.usage_months
    SELECT stream, month, sum(credits), sum(photos), sum(runs), count(*)
    FROM projections.event_usage GROUP BY 1, 2
    """,
)
_A_REAL_RUN: Final = """
    SELECT reference FROM projections.transactions
    WHERE kind = 'usage' AND reference NOT LIKE 'run-_' ORDER BY first_version LIMIT 1
"""


def write_organisation(
    bench_env: BenchmarkEnvironment, database: str, *, runs: int, times_the_smallest: int, now: datetime
) -> str:
    """Fill a migrated database with an organisation of so many runs; return the id of a real run."""
    service = bench_env.service_url(database)
    open_organisations(service, [ORGANISATION])
    start_position(service)
    feed_all(service, _interleaved(min(times_the_smallest, 20)), 2_000)
    ProjectionRunner(service, ALL_PROJECTIONS).catch_up()
    parameters = {
        "stream": str(stream_id(ORGANISATION)),
        "now": now,
        "runs": runs,
        "credits": _CREDITS_A_RUN,
        "side_by_side": times_the_smallest,
        "runs_an_event": RUNS_AN_EVENT,
        "busiest": RUNS_AN_EVENT_OF_THE_BUSIEST,
        "payments": runs // RUNS_A_PAYMENT,
        "open_holds": OPEN_HOLDS,
        "over_days": _OVER_DAYS,
    }
    with psycopg.connect(bench_env.owner_url(database), autocommit=True) as connection:
        run_id = _real_run(connection)
        for statement in _ROWS:
            connection.execute(statement, parameters if "%(" in statement else None)
    return run_id


def _interleaved(runs_at_a_time: int) -> list[UsageRecord]:
    """Return the messages of overlapping runs."""
    streams = [
        Traffic([ORGANISATION], seed=seed, first_message=seed * _CHARGES_OF_A_RUN).take(_CHARGES_OF_A_RUN)
        for seed in range(1, runs_at_a_time + 1)
    ]
    records = [record for together in zip(*streams, strict=True) for record in together]
    return [record._replace(offset=offset) for offset, record in enumerate(records)]


def _real_run(connection: Connection) -> str:
    row = connection.execute(_A_REAL_RUN).fetchone()
    assert row is not None
    return str(row[0])
