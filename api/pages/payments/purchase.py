"""The purchase wizard: Plan, Credits (or the amount of a custom payment), Review, Payment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from api.http.dependencies import Services, ServicesDep, command_context_of
from api.http.sessions import Session
from api.pages.credits import recommendations
from api.pages.payments import custom_payment_form
from api.pages.shell import labels, rendering
from api.pages.shell.forms import Form, FormResult, form_result_of
from api.pages.shell.page import Page, PageDep
from api.pages.shell.routing import PageRoute, redirect
from domain.identity.principals import Role
from domain.payments.errors import PaymentClosed, PaymentNotFound, ProAlreadyActive
from domain.payments.events import PaymentKind
from domain.payments.gateway import GatewayError, GatewayUnavailable, id_for_gateway
from domain.payments.quotes import PurchasePlan, PurchaseQuote, check_can_buy
from domain.pricing.plans import Plan
from domain.shared import command_context
from projections.connection import Connection
from projections.credits import queries as credit_queries
from projections.credits.read_models import Balance
from projections.credits.usage_baseline import UsageBaseline, usage_baseline

SECOND_STEPS: Final = {PurchasePlan.CUSTOM: ("Amount", "purchase_custom.html")}
"""Title and template of the second step, for plans whose second step is not Credits."""
_CREDITS_STEP: Final = ("Credits", "purchase_credits.html")

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_Credits = Annotated[str, Query(max_length=24)]
_QuoteId = Annotated[str, Query(min_length=1, max_length=128)]
_PaymentId = Annotated[str, Query(min_length=1, max_length=128)]
_PaymentPath = Annotated[str, Path(min_length=1, max_length=128)]


@dataclass(frozen=True)
class _PurchaseData:
    balance: Balance
    usage_baseline: UsageBaseline
    position: int


@router.get("/credits/purchase")
def get_purchase(
    page: PageDep, plan: PurchasePlan | None = None, credits: _Credits = "", quote: _QuoteId | None = None
) -> Response:
    """Show the first step, or the second step if the query has a plan or credits (from a suggestion).

    With a quote it shows the selection of that quote. A remark is personal, so it must not be in a URL.

    Raises:
        BilledByAgreement: the organisation cannot buy here.
        QuoteNotFound: the quote does not exist.
    """
    fields: Mapping[str, str] = {"credits": credits}
    if quote is not None:
        quoted = page.services.payments.find_quote(page.organisation_id, quote)
        plan, fields = quoted.plan, _fields_of(quoted)
    if plan is None and credits:
        plan = PurchasePlan.PAY_AS_YOU_GO
    organisation = page.services.ledger.organisation(page.organisation_id)
    try:
        check_can_buy(organisation, plan or PurchasePlan.PAY_AS_YOU_GO, page.services.clock())
    except ProAlreadyActive as error:
        return _show(page, None, {}, form_result_of(error))
    return _show(page, plan, fields)


@router.post("/credits/purchase")
def post_purchase(page: PageDep) -> Response:
    """Create a quote for the selection, and redirect to its review."""
    form = Form(page.http)
    plan = form.choice("plan", PurchasePlan)
    try:
        credits_count, amount_minor, remark = _read_selection(page, form, plan)
        quote = page.services.payments.quote(
            page.organisation_id,
            plan,
            credits_count,
            amount_minor=amount_minor,
            remark=remark,
            quote_id=page.services.new_id(),
            context=form.request,
        )
    except Exception as error:
        return _show(page, plan, form.fields, form_result_of(error, names=custom_payment_form.FIELD_NAMES))
    return redirect(page.url("/credits/purchase/review", quote=quote.quote_id))


@router.get("/credits/purchase/review")
def get_review(page: PageDep, quote: _QuoteId) -> Response:
    """Show a quote for review. An expired quote redirects back to its selection."""
    quoted = page.services.payments.find_quote(page.organisation_id, quote)
    if quoted.expires_at <= page.services.clock():
        if quoted.top_up is not None:
            return redirect(page.url("/credits/auto-top-up"))
        return redirect(page.url("/credits/purchase", quote=quote))
    gateways = [
        (name, labels.gateway(name))
        for name, gateway in page.services.payments.gateways.items()
        if quoted.terms.currency in gateway.currencies
        and (gateway.supports_recurring_charges or quoted.top_up is None)
    ]
    return page.render(
        "purchase_review.html",
        page.view(credit_queries.balance),
        quote=quoted,
        gateways=gateways,
        steps=_steps(quoted.plan),
        field_errors=(),
        words=labels,
    )


@router.post("/credits/purchase/payment")
def post_payment(page: PageDep) -> Response:
    """Create the payment of a quote. A repeat returns the same payment."""
    form = Form(page.http)
    payments = page.services.payments
    quote_id, gateway = form.text("quote", 128), form.text("gateway", 64)
    payment_id = id_for_gateway("pay", page.services.new_id())
    try:
        result = payments.begin(
            page.organisation_id,
            quote_id,
            gateway,
            payment_id=payment_id,
            context=form.request,
        )
    except GatewayUnavailable:  # the payment is recorded, and its page retries
        return redirect(page.url("/credits/purchase/payment", payment=payment_id))
    return redirect(page.url("/credits/purchase/payment", payment=result.payment.terms.payment_id))


@router.get("/credits/purchase/payment")
def get_payment(page: PageDep, payment: _PaymentId) -> Response:
    """Show the link to the gateway's page, or redirect to the payment if it cannot be paid any more."""
    result = page.services.payments.checkout(page.organisation_id, payment, context=page.command_context)
    if result.checkout is None:
        return redirect(page.url("/credits/billing", payment=payment, min_position=result.position))
    terms = result.payment.terms
    is_custom = terms.kind is PaymentKind.CUSTOM
    response = page.render(
        "purchase_payment.html",
        page.view(credit_queries.balance),
        terms=terms,
        payment_id=payment,
        remark=page.services.payments.remarks(page.organisation_id, [payment] if is_custom else []).get(
            payment
        ),
        checkout=result.checkout,
        steps=_steps(PurchasePlan.CUSTOM if is_custom else None),
        words=labels,
    )
    # The form may submit only to this gateway and to our own pages.
    url = urlsplit(result.checkout.url)
    response.headers["Content-Security-Policy"] = rendering.content_security_policy(
        f"{url.scheme}://{url.netloc}"
    )
    return response


@router.get("/credits/payments/{payment_id}/cancelled")
def get_cancelled(http: Request, services: ServicesDep, payment_id: _PaymentPath) -> Response:
    """Handle a payer who cancelled on the gateway's page: abandon the payment if it has no attempt.

    Gateways redirect with GET and drop queries, so this cannot be a form. It is safe: the gateway is checked
    first, and if the money arrives later, the payment still completes.

    Raises:
        PaymentNotFound: it does not exist, or the caller does not belong to its organisation.
    """
    session: Session = http.state.session
    principal = session.principal
    organisation_id = services.payments.payment(payment_id).terms.organisation_id
    if not principal.may_see(organisation_id):
        raise PaymentNotFound(payment_id=payment_id)
    if principal.memberships.get(organisation_id) is Role.ADMIN:
        with suppress(GatewayError, PaymentClosed):  # the payment then keeps its status
            _abandon_if_not_attempted(
                services, organisation_id, payment_id, command_context_of(http, services)
            )
    return redirect("/credits/billing", organisation=organisation_id, payment=payment_id)


def _abandon_if_not_attempted(
    services: Services, organisation_id: str, payment_id: str, request: command_context.CommandContext
) -> None:
    rechecked = services.payment_tracking.recheck(
        payment_id, organisation_id=organisation_id, context=request
    )
    payment = rechecked.payment
    gateway = services.payments.gateways[payment.terms.gateway]
    if payment.order_id is not None and not gateway.attempts(payment.order_id):
        services.payments.abandon(organisation_id, payment_id, context=request)


def _read_selection(page: Page, form: Form, plan: PurchasePlan) -> tuple[int, int | None, str | None]:
    """Return the selection of the second step: credits, amount in minor units, and remark.

    Raises:
        HttpProblem: a field is invalid.
    """
    if plan is PurchasePlan.CUSTOM:
        return 0, *custom_payment_form.read_custom_payment(form)
    if plan is PurchasePlan.PRO and form.fields.get("credits", "").strip() in ("", "0"):
        return 0, None, None
    minimum = page.services.ledger.prices.at(page.services.clock()).minimum_credits
    return form.whole_number("credits", minimum), None, None


def _fields_of(quoted: PurchaseQuote) -> Mapping[str, str]:
    """Return the fields of the second step for a quote."""
    return {
        "credits": str(quoted.terms.credits - quoted.included),
        "amount": custom_payment_form.amount_text(quoted.terms.amount_minor),
        "remark": quoted.remark or "",
    }


def _steps(plan: PurchasePlan | None) -> Sequence[str]:
    second, _ = _second_step(plan)
    return ("Plan", second, "Review", "Payment")


def _second_step(plan: PurchasePlan | None) -> tuple[str, str]:
    return _CREDITS_STEP if plan is None else SECOND_STEPS.get(plan, _CREDITS_STEP)


def _show(
    page: Page, plan: PurchasePlan | None, fields: Mapping[str, str], outcome: FormResult | None = None
) -> Response:
    """Show the first step, or the second step of a plan."""

    def read(connection: Connection, organisation_id: str) -> _PurchaseData:
        balance = credit_queries.balance(connection, organisation_id)
        return _PurchaseData(balance, usage_baseline(connection, organisation_id), balance.position)

    data = page.view(read)
    balance, outcome = data.balance, outcome or FormResult()
    prices = page.services.ledger.prices.at(page.services.clock())
    currency_prices = prices.of(balance.currency)
    price = balance.price_millionths or currency_prices.credit_price_millionths
    top_up = recommendations.top_up(
        balance.available, None, data.usage_baseline.event_credits, price, prices.minimum_credits
    )
    context: dict[str, Any] = {
        "plan": plan,
        "fields": fields,
        "minimum": prices.minimum_credits,
        "prices": currency_prices,
        "price": price,
        "top_up": top_up,
        "has_pro": balance.plan is Plan.PRO,
        "steps": _steps(plan),
        "field_errors": outcome.field_errors,
    }
    template = "purchase_plan.html" if plan is None else _second_step(plan)[1]
    return page.render(template, balance, outcome.status, **context)
