"""The API as an ASGI app. `create_app` builds it from the services that it receives."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, FastAPI

from api.credits import auto_top_up, reads, writes
from api.credits import holds as credit_holds
from api.http import docs_routes, health, openapi
from api.http.dependencies import Services
from api.http.metrics import ProjectionPositions, RequestMetrics
from api.http.middleware import RequestMiddleware
from api.http.permissions import RuleMissing
from api.http.problems import handlers
from api.http.routes import StrictRoute
from api.identity import api_keys as identity_api_keys
from api.identity import people as identity_people
from api.invoicing import billing_details, invoices
from api.pages import routers as pages
from api.payments import flags as payment_flags
from api.payments import payments
from api.webhooks import endpoints as webhook_endpoints

ROUTERS: Final = (
    writes.router,
    credit_holds.writes,
    reads.router,
    credit_holds.reads,
    payments.writes,
    payments.reads,
    payments.gateway_callbacks,
    auto_top_up.writes,
    auto_top_up.reads,
    payment_flags.writes,
    payment_flags.reads,
    identity_api_keys.router,
    webhook_endpoints.router,
    identity_people.router,
    billing_details.writes,
    billing_details.reads,
    invoices.writes,
    invoices.reads,
    health.router,
    docs_routes.router,
    *pages.ROUTERS,
)
"""All routers of the app."""


class Api(FastAPI):
    """FastAPI with the ledger's own OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        return openapi.describe(self)


def create_app(services: Services) -> FastAPI:
    """Return the app. It registers its metrics in `services.registry`, so each app needs its own registry.

    There is no global state: one process can run several apps with different services.
    """
    app = Api(
        title=openapi.TITLE,
        version=openapi.VERSION,
        openapi_url=None,  # api.http.docs_routes serves the document and a page that needs no network
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=handlers(),
    )
    app.state.services = services
    app.add_middleware(RequestMiddleware, services=services, metrics=RequestMetrics(services.registry))
    services.registry.register(ProjectionPositions(services.read_connection))
    for router in ROUTERS:
        _check_routes(router)
        app.include_router(router)
    return app


def _check_routes(router: APIRouter) -> None:
    """Refuse routes without access control: only a `StrictRoute` checks its permission rule.

    Raises:
        RuleMissing: a route is not a `StrictRoute`.
    """
    for route in router.routes:
        if not isinstance(route, StrictRoute):
            raise RuleMissing(f"{route} is not a StrictRoute: it would authenticate nobody")
