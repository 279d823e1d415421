"""What operators and machines ask: health, metrics, and what a problem type means."""

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

_ANYWHERE = responses("cross-site-request", "host-not-allowed", "invalid-request", "internal-error")

router = APIRouter(route_class=StrictRoute, tags=["Operations"], responses=_ANYWHERE)


class Health(BaseModel):
    """The process lives."""

    status: Literal["alive"] = Field(default="alive", description="Always this.", examples=["alive"])


class Readiness(BaseModel):
    """Every part of the service is ready."""

    status: Literal["ready"] = Field(default="ready", description="Always this.", examples=["ready"])
    checks: dict[str, Literal["ok"]] = Field(
        description="The parts that were checked.", examples=[{"database": "ok"}]
    )


class ProblemMeaning(BaseModel):
    """What a problem type means."""

    type: str = Field(description="The type's URI.", examples=["/problems/organisation-unknown"])
    title: str = Field(description="The type in words.", examples=["Organisation unknown"])
    status: int = Field(description="The HTTP status it comes with.", examples=[404])
    explanation: str = Field(
        description="When it happens.", examples=["No organisation with this id is open."]
    )


@router.get("/", include_in_schema=False)
def redirect_root(request: Request) -> RedirectResponse:
    """Lead people's browsers to the pages, and programs to the documentation."""
    is_browser = "text/html" in request.headers.get("Accept", "")
    return RedirectResponse(
        "/credits" if is_browser else "/docs", status_code=307, headers={"Vary": "Accept"}
    )


@router.get(
    "/healthz", operation_id="getHealth", summary="Liveness", response_description="The process lives."
)
async def get_health() -> Health:
    """Tell that the process lives. Nothing else is asked: restart the process only if this fails."""
    return Health()


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Readiness",
    response_description="Send requests.",
    responses=responses("not-ready", "store-unavailable"),
)
def get_readiness(services: ServicesDep) -> Readiness:
    """Tell whether every part of the service is ready; a problem names the parts that are not."""
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
    """Return counts and durations of requests, and positions and lag of projections, for Prometheus."""
    return Response(generate_latest(services.registry), media_type=CONTENT_TYPE_LATEST)


@router.get(
    "/problems/{name}",
    operation_id="getProblem",
    summary="What a problem means",
    response_description="The explanation.",
    responses=responses("not-found"),
)
async def get_problem(
    name: Annotated[str, Path(description="The last part of a problem's type.", examples=["not-found"])],
) -> ProblemMeaning:
    """Explain a problem type in a sentence."""
    problem = PROBLEM_TYPES.get(name)
    if problem is None:
        raise HttpProblem("not-found", f"no problem type has the name {name[:64]!r}")
    return ProblemMeaning(
        type=problem.uri, title=problem.title, status=problem.status, explanation=problem.explanation
    )
