"""The map from errors to problems."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import psycopg
import pytest

from api.http import problems
from api.http.problem_types import PROBLEM_TYPES
from domain.credits import errors as credit_errors
from domain.shared import errors as shared_errors
from projections.engine.errors import ProjectionCheckpointConflict, RebuildConflict
from projections.query.errors import RunNotFound

ROOT = Path(__file__).parents[3]
ERROR_MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for layer in ("domain", "projections")
    for path in sorted((ROOT / layer).glob("*/errors.py"))
]
for module in ERROR_MODULES:
    import_module(module)

# These are not raised in requests, but by consumers, runners and rebuilds.
NOT_OF_REQUESTS = {ProjectionCheckpointConflict, RebuildConflict, shared_errors.DeadLettersUnavailable}


def _with_subclasses(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(_with_subclasses(heir) for heir in kind.__subclasses__()))


def _ours(kind: type[Exception]) -> bool:
    return kind.__module__ in ERROR_MODULES


@pytest.mark.parametrize(
    "kind", sorted(filter(_ours, _with_subclasses(shared_errors.LedgerError)), key=lambda kind: kind.__name__)
)
def test_every_error_of_the_ledger_has_a_problem(kind):
    assert kind in problems._PROBLEM_BY_ERROR or kind in NOT_OF_REQUESTS, "add it to api.http.problems"


def test_the_map_has_existing_problem_types():
    assert {mapped.name for mapped in problems._PROBLEM_BY_ERROR.values()} <= PROBLEM_TYPES.keys()


@pytest.mark.parametrize(
    ("error", "name", "field"),
    [
        (credit_errors.OrganisationNotFound("no such"), "organisation-unknown", None),
        (shared_errors.InvalidInput("credits", "too many"), "invalid-request", "credits"),
        (credit_errors.ChargeNotFound(), "charge-unknown", "charge"),
        (credit_errors.RefundExceedsCharge("2 left"), "refund-exceeds-charge", "credits"),
        (credit_errors.PurchaseAlreadyRecorded(), "purchase-already-recorded", "payment_id"),
        (credit_errors.CurrencyMismatch(), "currency-mismatch", "currency"),
        (shared_errors.IdempotencyConflict(), "idempotency-conflict", "Idempotency-Key"),
        (RunNotFound(), "run-unknown", None),
    ],
)
def test_a_refusal_has_its_message_and_field(error, name, field):
    problem = problems.problem_of(error)
    assert (problem.name, problem.detail) == (name, str(error))
    assert [each.field for each in problem.errors] == ([field] if field else [])


def test_a_refusal_of_several_fields_names_all_and_describes_some():
    field_errors = [(f"lines.{number}", "empty") for number in range(5)]
    problem = problems.problem_of(shared_errors.InvalidInput(*field_errors[0], *field_errors[1:]))
    assert [(each.field, each.message) for each in problem.errors] == field_errors
    assert problem.detail == "lines.0: empty; lines.1: empty; lines.2: empty"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (shared_errors.StoreUnavailable("connection to 10.0.0.7 refused"), "store-unavailable"),
        (shared_errors.VersionConflict("10.0.0.7"), "store-unavailable"),
        (psycopg.OperationalError("10.0.0.7"), "store-unavailable"),
        (psycopg.errors.QueryCanceled("10.0.0.7"), "store-unavailable"),
        (shared_errors.InvariantViolation("10.0.0.7"), "internal-error"),
        (shared_errors.UnknownEventType("10.0.0.7"), "internal-error"),
        (psycopg.DataError("10.0.0.7"), "internal-error"),
        (KeyError("10.0.0.7"), "internal-error"),
    ],
)
def test_a_failure_shows_no_internal_details(error, name):
    problem = problems.problem_of(error)
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
