"""Operations for operators and machines: health, metrics, and the meaning of problem types."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.http.dependencies import ServicesDep
from api.http.problem_types import PROBLEM_TYPES, FieldError
from api.http.problems import HttpProblem, responses
from api.http.routes import StrictRoute

_COMMON_PROBLEMS = responses("cross-site-request", "host-not-allowed", "invalid-request", "internal-error")

router = APIRouter(route_class=StrictRoute, tags=["Operations"], responses=_COMMON_PROBLEMS)


class Health(BaseModel):
    """The process is alive."""

    status: Literal["alive"] = Field(default="alive", description="Always this value.", examples=["alive"])


class Readiness(BaseModel):
    """Every part of the service is ready."""

    status: Literal["ready"] = Field(default="ready", description="Always this value.", examples=["ready"])
    checks: dict[str, Literal["ok"]] = Field(
        description="The parts that were checked.", examples=[{"database": "ok"}]
    )


class ProblemMeaning(BaseModel):
    """The meaning of a problem type."""

    type: str = Field(description="The URI of the type.", examples=["/problems/organisation-unknown"])
    title: str = Field(description="The title of the type.", examples=["Organisation unknown"])
    status: int = Field(description="The HTTP status of the type.", examples=[404])
    explanation: str = Field(
        description="When the problem occurs.", examples=["No organisation with this id is open."]
    )


@router.get("/", include_in_schema=False)
def redirect_root(request: Request) -> RedirectResponse:
    """Redirect browsers to the pages, and other clients to the documentation."""
    is_browser = "text/html" in request.headers.get("Accept", "")
    return RedirectResponse(
        "/credits" if is_browser else "/docs", status_code=307, headers={"Vary": "Accept"}
    )


@router.get(
    "/healthz", operation_id="getHealth", summary="Liveness", response_description="The process is alive."
)
async def get_health() -> Health:
    """Report that the process is alive. Checks nothing else: restart the process only if this fails."""
    return Health()


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Readiness",
    response_description="The service is ready for requests.",
    responses=responses("not-ready", "store-unavailable"),
)
def get_readiness(services: ServicesDep) -> Readiness:
    """Report whether every part of the service is ready. A problem names the parts that are not."""
    checks = services.readiness()
    failing = [FieldError(field=name, message=reason) for name, reason in checks.items() if reason]
    if failing:
        raise HttpProblem(
            "not-ready", "; ".join(f"{each.field}: {each.message}" for each in failing), failing
        )
    return Readiness(checks=dict.fromkeys(checks, "ok"))


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Metrics",
    response_description="Prometheus text.",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_metrics(services: ServicesDep) -> Response:
    """Return request counts and durations, and positions and lag of projections, for Prometheus."""
    return Response(generate_latest(services.registry), media_type=CONTENT_TYPE_LATEST)


@router.get(
    "/problems/{name}",
    operation_id="getProblem",
    summary="Meaning of a problem",
    response_description="The explanation.",
    responses=responses("not-found"),
)
async def get_problem(
    name: Annotated[str, Path(description="The last segment of a problem's `type`.", examples=["not-found"])],
) -> ProblemMeaning:
    """Explain a problem type in one sentence."""
    problem = PROBLEM_TYPES.get(name)
    if problem is None:
        raise HttpProblem("not-found", f"no problem type has the name {name[:64]!r}")
    return ProblemMeaning(
        type=problem.uri, title=problem.title, status=problem.status, explanation=problem.explanation
    )
