"""Staff pages of an organisation: grant credits, refund a charge, request a payment, set price and plan."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, time
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from api.http.dependencies import ServicesDep
from api.http.fields import REASON_LENGTH_MAX
from api.http.problems import invalid
from api.pages.payments.custom_payment_form import FIELD_NAMES, read_custom_payment
from api.pages.shell import labels
from api.pages.shell.formats import in_utc
from api.pages.shell.forms import IDEMPOTENCY_FIELD, Form, FormResult, form_result_of
from api.pages.shell.page import Page, PageDep
from api.pages.shell.rendering import render
from api.pages.shell.routing import PageRoute, redirect
from domain.credits.command_result import CommandResult
from domain.credits.events import GrantKind
from domain.credits.limits import CREDITS_MAX
from domain.payments.gateway import id_for_gateway
from domain.payments.repository import PaymentResult
from domain.pricing.plans import Plan
from domain.shared.command_runner import RecordedResult
from domain.shared.errors import InvalidInput
from domain.shared.money import PRICE_MILLIONTHS_MAX
from projections.credits import queries as credit_queries

GRANT_KINDS: Final = ((GrantKind.ADMIN, "Admin Grant"), (GrantKind.PROMOTIONAL, "Free Credits"))

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_RunId = Annotated[str, Query(min_length=1, max_length=128)]
_Version = Annotated[int, Query(ge=1, le=2**62)]


@router.get("/credits/staff/grant")
def get_grant(page: PageDep) -> Response:
    """Show the form of a grant."""
    return _show(page, "grant.html")


@router.post("/credits/staff/grant")
def post_grant(page: PageDep) -> Response:
    """Grant credits."""

    def grant(form: Form) -> RecordedResult[CommandResult]:
        return page.services.commands.grant(
            page.organisation_id,
            form.whole_number("credits", 1, CREDITS_MAX),
            kind=form.choice("kind", GrantKind),
            reason=form.text("reason", REASON_LENGTH_MAX),
            context=form.request,
            idempotency_key=form.idempotency_key(page.organisation_id),
        )

    return _submit(page, grant, "grant.html", "/credits", tab="purchases")


@router.get("/credits/staff/refund")
def get_refund(page: PageDep, run: _RunId, charge: _Version) -> Response:
    """Show the form of a refund."""
    return _show(page, "refund.html", run_id=run, charge=charge)


@router.post("/credits/staff/refund")
def post_refund(page: PageDep, run: _RunId, charge: _Version) -> Response:
    """Refund a charge: some credits, or all that were not refunded yet."""

    def refund(form: Form) -> RecordedResult[CommandResult]:
        return page.services.commands.refund_charge(
            page.organisation_id,
            charge,
            form.whole_number("credits", 1, CREDITS_MAX) if form.fields.get("credits", "").strip() else None,
            reason=form.text("reason", REASON_LENGTH_MAX),
            context=form.request,
            idempotency_key=form.idempotency_key(page.organisation_id),
        )

    return _submit(
        page,
        refund,
        "refund.html",
        "/credits",
        extra_context={"run_id": run, "charge": charge},
        tab="purchases",
    )


@router.get("/credits/staff/custom-payment")
def get_custom_payment(page: PageDep) -> Response:
    """Show the form of a custom payment."""
    return _show(page, "custom_payment.html")


@router.post("/credits/staff/custom-payment")
def post_custom_payment(page: PageDep) -> Response:
    """Request a custom payment: an amount plus tax. It adds no credits."""

    def request(form: Form) -> PaymentResult:
        amount_minor, remark = read_custom_payment(form)
        return page.services.payments.begin_custom(
            page.organisation_id,
            amount_minor,
            remark,
            form.text("gateway", 64),
            payment_id=id_for_gateway("pay", page.services.new_id()),
            context=form.request,
            idempotency_key=form.idempotency_key(page.organisation_id),
        )

    return _submit(page, request, "custom_payment.html", "/credits/billing")


@router.get("/credits/staff/terms")
def get_terms(page: PageDep) -> Response:
    """Show the forms for price and plan."""
    return _show(page, "terms.html")


@router.post("/credits/staff/price")
def post_price(page: PageDep) -> Response:
    """Set the price of one credit from now on."""

    def change(form: Form) -> RecordedResult[CommandResult]:
        return page.services.commands.change_price(
            page.organisation_id,
            form.price_millionths("price", PRICE_MILLIONTHS_MAX),
            context=form.request,
            idempotency_key=form.idempotency_key(page.organisation_id),
        )

    return _submit(page, change, "terms.html", "/credits/staff/terms")


@router.post("/credits/staff/plan")
def post_plan(page: PageDep) -> Response:
    """Change the plan. It expires at the end of a day in the organisation's time zone, or never."""
    zone = ZoneInfo(page.view(credit_queries.balance).time_zone)

    def change(form: Form) -> RecordedResult[CommandResult]:
        plan = form.choice("plan", Plan)
        expires_at = _end_of_day(form.text("last_day", 10, required=False), zone)
        idempotency_key = form.idempotency_key(page.organisation_id)
        try:
            return page.services.commands.change_plan(
                page.organisation_id,
                plan,
                expires_at=expires_at,
                context=form.request,
                idempotency_key=idempotency_key,
            )
        except InvalidInput as error:  # it concerns `expires_at`, which is `last_day` in the form
            raise invalid("last_day", str(error)) from None

    return _submit(page, change, "terms.html", "/credits/staff/terms")


@router.get("/credits/dead-letters")
def get_dead_letters(http: Request, services: ServicesDep) -> Response:
    """List the dead letters, newest first."""
    return render(http, "dead_letters.html", letters=services.pages.dead_letters(), in_utc=in_utc)


def _submit(
    page: Page,
    execute: Callable[[Form], RecordedResult[CommandResult] | PaymentResult],
    template: str,
    next_path: str,
    extra_context: dict[str, Any] | None = None,
    **query: str,
) -> Response:
    """Execute a command and redirect to its result. On an error, show the form with its errors."""
    form = Form(page.http)
    try:
        result = execute(form)
    except Exception as error:
        return _show(
            page, template, form_result_of(error, names=FIELD_NAMES), form.fields, **(extra_context or {})
        )
    return redirect(page.url(next_path, min_position=result.position, **query))


def _show(
    page: Page,
    template: str,
    outcome: FormResult | None = None,
    fields: Any = None,
    **extra_context: Any,
) -> Response:
    outcome = outcome or FormResult()
    balance = page.view(credit_queries.balance)
    gateways = page.services.payments.gateways.items()
    prices = page.services.ledger.prices.at(page.services.clock())
    return page.render(
        template,
        balance,
        outcome.status,
        field_errors=outcome.field_errors,
        fields=fields or {},
        idempotency_key=(fields or {}).get(IDEMPOTENCY_FIELD) or page.services.new_id(),
        kinds=[(kind.value, name) for kind, name in GRANT_KINDS],
        plans=[(plan.value, labels.PLANS[plan]) for plan in Plan],
        gateways=[
            (name, labels.gateway(name)) for name, each in gateways if balance.currency in each.currencies
        ],
        tax_per_cent=prices.of(balance.currency).tax_per_cent,
        words=labels,
        **extra_context,
    )


def _end_of_day(day: str, zone: ZoneInfo) -> datetime | None:
    """Return the last second of a day, or None for an empty text.

    Raises:
        HttpProblem: the text is not a day.
    """
    if not day:
        return None
    try:
        return datetime.combine(datetime.strptime(day, "%Y-%m-%d"), time(23, 59, 59), zone)  # noqa: DTZ007
    except ValueError:
        raise invalid("last_day", "enter a day such as 2027-03-31") from None
