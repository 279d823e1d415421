"""The map from errors to problems."""

from __future__ import annotations

import psycopg
import pytest

from api import problems
from api.problem_types import PROBLEM_TYPES
from domain import errors
from projections.errors import ProjectionMoved, RebuildRefused, RunUnknown

# These are raised where no request is: by consumers, runners and rebuilds.
NOT_OF_REQUESTS = {ProjectionMoved, RebuildRefused, errors.DeadLettersUnavailable}


def _with_heirs(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(_with_heirs(heir) for heir in kind.__subclasses__()))


def _ours(kind: type[Exception]) -> bool:
    return kind.__module__ in ("domain.errors", "projections.errors")


@pytest.mark.parametrize(
    "kind", sorted(filter(_ours, _with_heirs(errors.LedgerError)), key=lambda kind: kind.__name__)
)
def test_every_error_of_the_ledger_has_its_place(kind):
    assert kind in problems._PROBLEM_OF or kind in NOT_OF_REQUESTS, "add it to api.problems"


def test_the_map_names_problem_types_that_there_are():
    assert {mapped.name for mapped in problems._PROBLEM_OF.values()} <= PROBLEM_TYPES.keys()


@pytest.mark.parametrize(
    ("error", "name", "field"),
    [
        (errors.OrganisationUnknown("no such"), "organisation-unknown", None),
        (errors.InvalidInput("credits", "too many"), "invalid-request", "credits"),
        (errors.ChargeUnknown(), "charge-unknown", "charge"),
        (errors.RefundExceedsCharge("2 left"), "refund-exceeds-charge", "credits"),
        (errors.PurchaseAlreadyRecorded(), "purchase-already-recorded", "payment_id"),
        (errors.CurrencyMismatch(), "currency-mismatch", "currency"),
        (errors.IdempotencyConflict(), "idempotency-conflict", "Idempotency-Key"),
        (RunUnknown(), "run-unknown", None),
    ],
)
def test_a_refusal_keeps_its_sentence_and_names_the_field(error, name, field):
    problem = problems.explain(error)
    assert (problem.name, problem.detail) == (name, str(error))
    assert [each.field for each in problem.errors] == ([field] if field else [])


def test_a_refusal_of_several_fields_names_them_all_and_tells_of_some():
    faults = [(f"lines.{number}", "empty") for number in range(5)]
    problem = problems.explain(errors.InvalidInput(*faults[0], *faults[1:]))
    assert [(each.field, each.message) for each in problem.errors] == faults
    assert problem.detail == "lines.0: empty; lines.1: empty; lines.2: empty"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (errors.StoreUnavailable("connection to 10.0.0.7 refused"), "store-unavailable"),
        (errors.StaleVersion("10.0.0.7"), "store-unavailable"),
        (psycopg.OperationalError("10.0.0.7"), "store-unavailable"),
        (psycopg.errors.QueryCanceled("10.0.0.7"), "store-unavailable"),
        (errors.InvariantBroken("10.0.0.7"), "internal-error"),
        (errors.UnknownEventType("10.0.0.7"), "internal-error"),
        (psycopg.DataError("10.0.0.7"), "internal-error"),
        (KeyError("10.0.0.7"), "internal-error"),
    ],
)
def test_a_failure_says_nothing_of_the_inside(error, name):
    problem = problems.explain(error)
    assert problem.name == name
    assert "10.0.0.7" not in problem.detail
    assert not problem.errors


def test_documented_responses_of_one_status_are_gathered():
    documented = problems.responses("organisation-unknown", "run-unknown", "store-unavailable")
    assert documented.keys() == {404, 503}
    examples = documented[404]["content"]["application/problem+json"]["examples"]
    assert examples.keys() == {"organisation-unknown", "run-unknown"}
    assert documented[404]["description"] == "Organisation unknown; run unknown"
    assert "Retry-After" in documented[503]["headers"]
