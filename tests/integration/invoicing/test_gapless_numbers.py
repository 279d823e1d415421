"""Numbers have no gaps and no repeats, with concurrent writers and killed processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from random import Random

import msgspec
import pytest

from domain.invoicing.documents import decode_document, document_digest
from domain.shared.errors import StoreError
from infra.service.composition import open_ledger
from tests.integration.invoicing.conftest import (
    DETAILS,
    ORG,
    InvoicingEnvironment,
    invoicing_of,
    request,
)
from tests.sales import NOON

WRITERS = 8
PAYMENTS = 60
REPOSITORY = Path(__file__).parents[3]

WRITER = """
import sys
from random import Random
from infra.service.composition import open_ledger
from tests.integration.invoicing.conftest import ORG, invoicing_of, request

database, seed, payments = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
order = [f"payment-{number}" for number in range(payments)]
Random(seed).shuffle(order)
with open_ledger(database, pool_size=1) as ledger:
    invoicing = invoicing_of(ledger)
    for payment_id in order:
        invoicing.issue(ORG, payment_id, context=request())
"""


@pytest.fixture
def paid(invoicing_env: InvoicingEnvironment) -> InvoicingEnvironment:
    """Many payments without invoices; a third of them were refunded in two parts."""
    invoicing_env.invoicing.change_billing_details(ORG, DETAILS, context=request())
    for number in range(PAYMENTS):
        invoicing_env.pay(f"payment-{number}")
        if number % 3 == 0:
            invoicing_env.give_back(f"payment-{number}", "a", 333, 49_950, 8_991)
            invoicing_env.give_back(f"payment-{number}", "b", 667, 100_050, 18_009)
    return invoicing_env


def check(invoicing_env: InvoicingEnvironment) -> None:
    """Check that every payment has one invoice, every refund one credit note, and that both series are
    complete.
    """
    events = invoicing_env.rows("""
        SELECT topic, state, originator_version FROM ledger.events
        WHERE topic IN ('invoice_issued.v1', 'credit_note_issued.v1') ORDER BY notification_id
    """)
    documents = dict(invoicing_env.rows("SELECT number, document FROM ledger.invoice_documents"))
    assert len(documents) == len(events)
    for topic, count, series in [
        ("invoice_issued.v1", PAYMENTS, "CL/26-27"),
        ("credit_note_issued.v1", PAYMENTS // 3 * 2, "CLC/26-27"),
    ]:
        recorded = [
            (msgspec.json.decode(bytes(state)), version) for name, state, version in events if name == topic
        ]
        assert [event[4] for event, _ in recorded] == [
            f"{series}/{serial:06}" for serial in range(1, count + 1)
        ]
        assert (
            [event[5] for event, _ in recorded]
            == [version for _, version in recorded]
            == [*range(1, count + 1)]
        )
        for event, _ in recorded:
            assert document_digest(documents[event[4]].encode()) == event[10]
    read = [decode_document(document.encode()) for document in documents.values()]
    by_number = sorted(read, key=lambda each: (each.kind, each.number))
    of_series = [each.issued_at for each in by_number if each.kind == "invoice"]
    assert of_series == sorted(of_series), "dates never decrease"
    about = [(each.payment_id, each.correction and each.correction.refund_id) for each in read]
    assert len(set(about)) == len(about) == PAYMENTS + PAYMENTS // 3 * 2


def issued(invoicing_env: InvoicingEnvironment) -> int:
    return int(invoicing_env.rows("SELECT count(*) FROM ledger.invoice_documents")[0][0])


def test_concurrent_writers(paid: InvoicingEnvironment, service_database: str) -> None:
    def write(seed: int, issue: Callable[..., object]) -> None:
        order = [f"payment-{number}" for number in range(PAYMENTS)]
        Random(seed).shuffle(order)
        for payment_id in order:
            # The clocks of different machines differ.
            issue(ORG, payment_id, context=request(NOON + timedelta(seconds=seed % 3)))

    with ExitStack() as stack, ThreadPoolExecutor(WRITERS) as pool:
        ledgers = [stack.enter_context(open_ledger(service_database, pool_size=1)) for _ in range(WRITERS)]
        for future in [
            pool.submit(write, seed, invoicing_of(ledger).issue) for seed, ledger in enumerate(ledgers)
        ]:
            future.result()
    check(paid)


def test_writers_that_are_killed_leave_no_gap(paid: InvoicingEnvironment, service_database: str) -> None:
    """Processes are killed at any point; the next ones continue."""
    rnd = Random(4711)
    for generation in range(4):
        running = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, service_database, str(10 * generation + seed), str(PAYMENTS)],
                cwd=REPOSITORY,
            )
            for seed in range(2)
        ]
        while issued(paid) < 12 * (generation + 1):
            assert all(process.poll() is None for process in running), "a writer failed by itself"
            time.sleep(0.002)
        time.sleep(rnd.uniform(0, 0.005))
        for process in running:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    assert issued(paid) < PAYMENTS // 3 * 5, "no writer was killed during its work"
    for number in range(PAYMENTS):
        with suppress(StoreError):  # a killed writer's transaction may still be rolling back
            paid.invoicing.issue(ORG, f"payment-{number}", context=request())
    for number in range(PAYMENTS):
        paid.invoicing.issue(ORG, f"payment-{number}", context=request())
    check(paid)
