"""The API as an ASGI app, wired from the services it is given."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, FastAPI

from api import (
    billing,
    documentation,
    flags,
    holds,
    invoices,
    keys,
    openapi,
    operations,
    payments,
    people,
    reads,
    top_ups,
    webhook_endpoints,
    writes,
)
from api.access import RuleMissing
from api.dependencies import Services
from api.middleware import Entrance
from api.pages import routers as pages
from api.problems import handlers
from api.routes import StrictRoute
from api.telemetry import ProjectionPositions, RequestMetrics

ROUTERS: Final = (
    writes.router,
    holds.writes,
    reads.router,
    holds.reads,
    payments.writes,
    payments.reads,
    payments.news,
    top_ups.writes,
    top_ups.reads,
    flags.writes,
    flags.reads,
    keys.router,
    webhook_endpoints.router,
    people.router,
    billing.writes,
    billing.reads,
    invoices.writes,
    invoices.reads,
    operations.router,
    documentation.router,
    *pages.ROUTERS,
)
"""Everything that is served."""


class Api(FastAPI):
    """FastAPI, with the ledger's own OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        return openapi.describe(self)


def create_app(services: Services) -> FastAPI:
    """Return the app. It registers metrics with `services.registry`, so each app needs a registry.

    There is no global state: two apps with different services live side by side.
    """
    app = Api(
        title=openapi.TITLE,
        version=openapi.VERSION,
        openapi_url=None,  # api.documentation serves it, and pages that need no network
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=handlers(),
    )
    app.state.services = services
    app.add_middleware(Entrance, services=services, metrics=RequestMetrics(services.registry))
    services.registry.register(ProjectionPositions(services.reading))
    for router in ROUTERS:
        _check_routes(router)
        app.include_router(router)
    return app


def _check_routes(router: APIRouter) -> None:
    """Refuse routes that would let anybody in: only a `StrictRoute` asks its rule.

    Raises:
        RuleMissing: there is such a route.
    """
    for route in router.routes:
        if not isinstance(route, StrictRoute):
            raise RuleMissing(f"{route} is no StrictRoute, and would ask nobody who they are")
