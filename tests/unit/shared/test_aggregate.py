"""What begins a history, and what is refused as a beginning."""

from __future__ import annotations

import pytest
from eventsourcing.application import project_aggregate
from eventsourcing.persistence import NotSupportedError

from domain.credits.organisation import Organisation
from domain.event_catalogue import AGGREGATES
from domain.payments.payment import Payment
from domain.shared.aggregate import EventEnvelope
from domain.shared.errors import InvariantViolation
from tests.sales import invoice, make_sale, series
from tests.unit.credits.builders import grant, opened, request, state_of
from tests.unit.payments.payment_builders import completed


def test_the_first_event_makes_the_aggregate() -> None:
    organisation, payment = opened(200), completed()
    replayed = project_aggregate(None, organisation.collect_events())
    assert isinstance(replayed, Organisation)
    assert state_of(replayed) == state_of(organisation)
    paid = project_aggregate(None, payment.collect_events())
    assert isinstance(paid, Payment)
    assert (paid.version, paid.status, paid.terms) == (payment.version, payment.status, payment.terms)
    assert {type(replayed), type(paid)} == {*AGGREGATES}


def test_a_snapshot_makes_the_aggregate() -> None:
    organisation = opened(200)
    restored: Organisation = organisation.snapshot().mutate(None)
    grant(restored, 50)
    assert (restored.version, restored.balance) == (3, 250)


def test_the_library_takes_the_same_snapshot() -> None:
    organisation = opened(200)
    assert Organisation.Snapshot.take(organisation) == organisation.snapshot()


def test_a_payment_has_no_snapshots() -> None:
    with pytest.raises(NotSupportedError, match="no snapshots are kept of Payment"):
        Payment.Snapshot.take(completed())


def test_a_history_begins_with_its_first_event() -> None:
    first, second = opened(200).collect_events()
    with pytest.raises(InvariantViolation, match="begins no history"):
        second.mutate(None)
    with pytest.raises(InvariantViolation, match="does not follow"):
        EventEnvelope(first.originator_id, 2, first.event).mutate(None)


def test_a_series_of_invoices_is_not_replayed() -> None:
    invoices = series()
    invoices.issue(invoice(make_sale()), request())
    (issued,) = invoices.collect_events()
    with pytest.raises(InvariantViolation, match="InvoiceIssued"):
        issued.mutate(None)
