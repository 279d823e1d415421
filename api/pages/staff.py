"""What staff do for an organisation: add credits, refund a charge, set its price and its plan."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, time
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from api.dependencies import Provided
from api.fields import REASON_LENGTH_MAX
from api.pages import words
from api.pages.custom_payments import FIELD_NAMES, read_custom
from api.pages.formats import in_utc
from api.pages.forms import ONCE, Form, Outcome, faults_of
from api.pages.page import Page, Shown
from api.pages.rendering import render
from api.pages.routing import PageRoute, redirect
from api.problems import invalid
from domain.errors import InvalidInput
from domain.facts import GrantKind, Plan
from domain.ledger import Recorded
from domain.money import PRICE_MILLIONTHS_MAX
from domain.organisation import CREDITS_MAX
from domain.payment_book import PaymentStanding
from domain.recording import Result
from projections import views

GRANT_KINDS: Final = ((GrantKind.ADMIN, "Admin Grant"), (GrantKind.PROMOTIONAL, "Free Credits"))

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_RunId = Annotated[str, Query(min_length=1, max_length=128)]
_Version = Annotated[int, Query(ge=1, le=2**62)]


@router.get("/credits/staff/grant")
def get_grant(page: Shown) -> Response:
    """Show the form that adds credits."""
    return _show(page, "grant.html")


@router.post("/credits/staff/grant")
def post_grant(page: Shown) -> Response:
    """Add credits."""

    def grant(form: Form) -> Result[Recorded]:
        return page.services.ledger.grant(
            page.organisation_id,
            form.whole("credits", 1, CREDITS_MAX),
            kind=form.choice("kind", GrantKind),
            reason=form.text("reason", REASON_LENGTH_MAX),
            request=form.request,
            once=form.once(page.organisation_id),
        )

    return _decide(page, grant, "grant.html", "/credits", tab="purchases")


@router.get("/credits/staff/refund")
def get_refund(page: Shown, run: _RunId, charge: _Version) -> Response:
    """Show the form that refunds a charge."""
    return _show(page, "refund.html", run_id=run, charge=charge)


@router.post("/credits/staff/refund")
def post_refund(page: Shown, run: _RunId, charge: _Version) -> Response:
    """Return credits of a charge: some, or all that is left of it."""

    def refund(form: Form) -> Result[Recorded]:
        return page.services.ledger.refund_charge(
            page.organisation_id,
            charge,
            form.whole("credits", 1, CREDITS_MAX) if form.fields.get("credits", "").strip() else None,
            reason=form.text("reason", REASON_LENGTH_MAX),
            request=form.request,
            once=form.once(page.organisation_id),
        )

    return _decide(
        page, refund, "refund.html", "/credits", shown={"run_id": run, "charge": charge}, tab="purchases"
    )


@router.get("/credits/staff/custom-payment")
def get_custom_payment(page: Shown) -> Response:
    """Show the form that asks for an amount."""
    return _show(page, "custom_payment.html")


@router.post("/credits/staff/custom-payment")
def post_custom_payment(page: Shown) -> Response:
    """Ask for an amount, tax on top; it adds no credits."""

    def ask(form: Form) -> PaymentStanding:
        amount_minor, remark = read_custom(form)
        return page.services.payments.begin_custom(
            page.organisation_id,
            amount_minor,
            remark,
            form.text("gateway", 64),
            payment_id=f"pay-{page.services.new_id()}"[:40],
            request=form.request,
            once=form.once(page.organisation_id),
        )

    return _decide(page, ask, "custom_payment.html", "/credits/billing")


@router.get("/credits/staff/terms")
def get_terms(page: Shown) -> Response:
    """Show the forms of price and plan."""
    return _show(page, "terms.html")


@router.post("/credits/staff/price")
def post_price(page: Shown) -> Response:
    """Set the price of one credit from now on."""

    def change(form: Form) -> Result[Recorded]:
        return page.services.ledger.change_price(
            page.organisation_id,
            form.price_millionths("price", PRICE_MILLIONTHS_MAX),
            request=form.request,
            once=form.once(page.organisation_id),
        )

    return _decide(page, change, "terms.html", "/credits/staff/terms")


@router.post("/credits/staff/plan")
def post_plan(page: Shown) -> Response:
    """Move to another plan, which ends with a day of the organisation's, or never."""
    zone = ZoneInfo(page.view(views.balance).time_zone)

    def change(form: Form) -> Result[Recorded]:
        plan = form.choice("plan", Plan)
        expires_at = _end_of(form.text("last_day", 10, required=False), zone)
        once = form.once(page.organisation_id)
        try:
            return page.services.ledger.change_plan(
                page.organisation_id, plan, expires_at=expires_at, request=form.request, once=once
            )
        except InvalidInput as error:  # about the end, which the form calls otherwise
            raise invalid("last_day", str(error)) from None

    return _decide(page, change, "terms.html", "/credits/staff/terms")


@router.get("/credits/dead-letters")
def get_dead_letters(http: Request, services: Provided) -> Response:
    """List usage messages that were refused, the latest first."""
    return render(http, "dead_letters.html", letters=services.pages.dead_letters(), in_utc=in_utc)


def _decide(
    page: Page,
    decide: Callable[[Form], Result[Recorded] | PaymentStanding],
    template: str,
    then: str,
    shown: dict[str, Any] | None = None,
    **query: str,
) -> Response:
    """Take a decision, and lead on to where it shows; or show the form again, with what is wrong."""
    form = Form(page.http)
    try:
        result = decide(form)
    except Exception as error:
        return _show(page, template, faults_of(error, names=FIELD_NAMES), form.fields, **(shown or {}))
    return redirect(page.url(then, min_position=result.position, **query))


def _show(
    page: Page,
    template: str,
    outcome: Outcome | None = None,
    fields: Any = None,
    **shown: Any,
) -> Response:
    outcome = outcome or Outcome()
    balance = page.view(views.balance)
    gateways = page.services.payments.gateways.items()
    prices = page.services.ledger.prices.at(page.services.clock())
    return page.render(
        template,
        balance,
        outcome.status,
        faults=outcome.faults,
        fields=fields or {},
        once=(fields or {}).get(ONCE) or page.services.new_id(),
        kinds=[(kind.value, name) for kind, name in GRANT_KINDS],
        plans=[(plan.value, words.PLANS[plan]) for plan in Plan],
        gateways=[
            (name, words.gateway(name)) for name, each in gateways if balance.currency in each.currencies
        ],
        tax_per_cent=prices.of(balance.currency).tax_per_cent,
        words=words,
        **shown,
    )


def _end_of(day: str, zone: ZoneInfo) -> datetime | None:
    """Return the last moment of a day, as the next midnight; None for no day."""
    if not day:
        return None
    try:
        return datetime.combine(datetime.strptime(day, "%Y-%m-%d"), time(23, 59, 59), zone)  # noqa: DTZ007
    except ValueError:
        raise invalid("last_day", "a day such as 2027-03-31") from None
