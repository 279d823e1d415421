"""Auto top-up: what is bought by itself, when, with whose card, and what holds it back today."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from api.dependencies import Connection
from api.pages import words
from api.pages.forms import ONCE, Form, Outcome, Reading, faults_of
from api.pages.page import Page, Shown
from api.pages.routing import PageRoute, redirect
from domain.auto_top_up import A_DAY_AT_MOST, THRESHOLD_MAX, TopUpTerms
from domain.errors import AutoTopUpIsOff, PaymentUnknown
from domain.facts import Plan
from domain.purchases import PurchasePlan
from projections import papers, payment_views, views
from projections.payment_views import PaymentRow
from projections.results import Balance
from projections.top_up_views import AutoTopUpStanding, auto_top_up

PATH: Final = "/credits/auto-top-up"

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True)
class _TopUp:
    balance: Balance
    standing: AutoTopUpStanding
    card_payment: PaymentRow | None
    last_payment: PaymentRow | None
    has_details: bool
    position: int


@router.get(PATH)
def get_auto_top_up(page: Shown) -> Response:
    """Show where auto top-up stands."""
    return _show(page)


@router.post(PATH)
def post_auto_top_up(page: Shown) -> Response:
    """Change what is bought by itself."""
    form = Form(page.http)
    try:
        result = page.services.payments.top_ups.change(
            page.organisation_id,
            _terms(page, form),
            request=form.request,
            once=form.once(page.organisation_id),
        )
    except Exception as error:
        return _show(page, faults_of(error), form)
    return redirect(page.url(PATH, min_position=result.position))


@router.post(PATH + "/switch-on")
def post_switch_on(page: Shown) -> Response:
    """Quote the purchase that switches it on, and lead on to its review."""
    form = Form(page.http)
    try:
        terms = _terms(page, form)
        quoted = page.services.payments.quote(
            page.organisation_id,
            PurchasePlan.PAY_AS_YOU_GO,
            terms.credits,
            quote_id=page.services.new_id(),
            request=form.request,
            top_up=terms,
        )
    except Exception as error:
        return _show(page, faults_of(error), form)
    return redirect(page.url("/credits/purchase/review", quote=quoted.quote_id))


@router.post(PATH + "/switch-off")
def post_switch_off(page: Shown) -> Response:
    """Buy nothing by itself any more; where it is off already, show that."""
    form = Form(page.http)
    try:
        result = page.services.payments.top_ups.switch_off(
            page.organisation_id, request=form.request, once=form.once(page.organisation_id)
        )
    except AutoTopUpIsOff:
        return redirect(page.url(PATH))
    return redirect(page.url(PATH, min_position=result.position))


def _terms(page: Page, form: Form) -> TopUpTerms:
    """Return what a form asks for.

    Raises:
        HttpProblem: something of it cannot be; it names all that cannot.
    """
    minimum = page.services.ledger.prices.at(page.services.clock()).minimum_credits
    reading = Reading()
    threshold = reading.of(0, form.whole, "threshold", 1, THRESHOLD_MAX)
    credits_count = reading.of(0, form.whole, "credits", minimum)
    per_day = reading.of(0, form.whole, "per_day", 1, A_DAY_AT_MOST)
    reading.check()
    return TopUpTerms(credits_count, threshold, per_day)


def _show(page: Page, outcome: Outcome | None = None, form: Form | None = None) -> Response:
    now = page.services.clock()

    def payment(connection: Connection, organisation_id: str, payment_id: str | None) -> PaymentRow | None:
        if payment_id is None:
            return None
        try:
            return payment_views.payment(connection, organisation_id, payment_id).payments[0]
        except PaymentUnknown:  # payments may be projected a moment later
            return None

    def read(connection: Connection, organisation_id: str) -> _TopUp:
        standing = auto_top_up(connection, organisation_id)
        return _TopUp(
            views.balance(connection, organisation_id),
            standing,
            payment(connection, organisation_id, standing.card_of),
            payment(connection, organisation_id, standing.last_payment_id),
            papers.billing_details(connection, organisation_id).details is not None,
            standing.position,
        )

    seen = page.view(read)
    outcome = outcome or Outcome()
    fields: dict[str, Any] = dict(form.fields) if form is not None else {}
    prices = page.services.ledger.prices.at(now)
    gateways = page.services.payments.gateways.values()
    return page.render(
        "auto_top_up.html",
        seen.balance,
        outcome.status,
        seen=seen,
        standing=seen.standing,
        begun_today=seen.standing.begun_on(now),
        held_back=seen.standing.held_back(now),
        is_offered=seen.balance.plan is not Plan.ENTERPRISE
        and any(each.charges_again and seen.balance.currency in each.currencies for each in gateways),
        minimum=prices.minimum_credits,
        most_per_day=A_DAY_AT_MOST,
        fields=fields,
        faults=outcome.faults,
        once=fields.get(ONCE) or page.services.new_id(),
        words=words,
    )
