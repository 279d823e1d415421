"""Generated requests: the API always responds as its OpenAPI document says, and never fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from prometheus_client import CollectorRegistry
from schemathesis import GenerationMode

from api.app import create_app
from domain.shared.command_context import CommandContext
from infra.service.composition import credits_of
from tests.integration.api.ledger_api import LedgerApi

ORGANISATION_ID: Final = "org-generated"
RUN_ID: Final = "run-generated"
EXAMPLES: Final = 12  # per operation and mode

# A valid value may still be refused: an unknown zone, a future moment, a character that does not print; and
# (with 400) a Pro plan for an organisation that has one.
ACCEPTED_STATUSES: Final = ["2xx", "400", "402", "404", "409", "422", "503"]


@pytest.fixture(scope="module")
def api_schema(ledger_api: LedgerApi) -> Any:
    """The schema of an app. Half of all requests name an existing organisation."""
    services = replace(
        ledger_api.services,
        registry=CollectorRegistry(),
        allowed_hosts=frozenset({"testserver"}),
        wait_limit_s=0.0,
    )
    credits_of(services.ledger).commands.open_organisation(
        ORGANISATION_ID, context=CommandContext(services.clock(), None, "test")
    )
    ledger_api.charge(ORGANISATION_ID, RUN_ID, 50)
    ledger_api.catch_up()
    checks = {
        "positive_data_acceptance": {"expected-statuses": ACCEPTED_STATUSES},
        "not_a_server_error": {"expected-statuses": ["2xx", "4xx", "503"]},
    }
    config = schemathesis.Config.from_dict({"checks": checks})
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(services), config=config)

    @schema.auth()
    class PermittedCaller:
        """Credentials of staff or the pipeline. Schemathesis omits them when it tests access without
        credentials.
        """

        def get(self, case: schemathesis.Case, context: Any) -> dict[str, dict[str, str]]:
            return {"staff": ledger_api.staff, "pipeline": ledger_api.bearer("p-1", roles=["service"])}

        def set(self, case: schemathesis.Case, who: dict[str, dict[str, str]], context: Any) -> None:
            is_of_pipeline = case.method == "POST" and "/holds" in case.path
            case.headers.update(who["pipeline" if is_of_pipeline else "staff"])

    @schema.hook
    def map_path_parameters(context: Any, path_parameters: dict[str, Any]) -> dict[str, Any]:
        known = {"organisation_id": ORGANISATION_ID, "run_id": RUN_ID}
        for name, value in (path_parameters or {}).items():
            if name in known and isinstance(value, str) and value.isprintable() and len(value) % 2:
                path_parameters[name] = known[name]
        return path_parameters

    return schema


@pytest.mark.slow(seconds=60)
@pytest.mark.no_cover
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_responses_conform_to_the_document(
    api_schema: Any, mode: GenerationMode, subtests: pytest.Subtests
) -> None:
    for found in api_schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.path.startswith("/v1"):
            continue  # these have no parameters that could be wrong

        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate()

        with subtests.test(operation.label):
            check()
