"""The pages of the sandbox: the checkout of both gateways, and the list of all orders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, select_autoescape

from infra.embedded.gateway_sandbox.outcomes import (
    DELAY_S,
    Outcome,
    ReturnRedirects,
    apply_outcome,
    available_outcomes,
)
from infra.embedded.gateway_sandbox.payglocal_api import PAGE
from infra.embedded.gateway_sandbox.payglocal_wire import PayGlocalTokenCodec
from infra.embedded.gateway_sandbox.razorpay_wire import GATEWAY as RAZORPAY
from infra.embedded.gateway_sandbox.state import (
    CAPTURED,
    FAILED,
    PENDING,
    Order,
    RequestRejected,
    SandboxState,
)
from infra.payments.gateways.payglocal_tokens import InvalidToken

_SYMBOLS: Final = {"INR": "₹", "USD": "$"}
_CARD_OUTCOMES: Final = {CAPTURED: "Succeeds", FAILED: "Is declined", PENDING: "Stays pending"}
_TITLES: Final = {"razorpay": "Razorpay", "payglocal": "PayGlocal"}


def checkout_router(
    state: SandboxState, key_id: str, token_codec: PayGlocalTokenCodec, return_redirects: ReturnRedirects
) -> APIRouter:
    """Return the routes of the pages."""
    router = APIRouter(default_response_class=HTMLResponse)
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=select_autoescape()
    )
    templates.filters["money"] = _money
    templates.globals["title_of"] = _TITLES.__getitem__

    def page(name: str, status: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(templates.get_template(name).render(values), status)

    def error_page(sentence: str, status: int = 400) -> HTMLResponse:
        return page("error.html", status, sentence=sentence)

    def checkout_page(order: Order) -> HTMLResponse:
        return page(
            "checkout.html", order=order, available_outcomes=available_outcomes(order), late_s=int(DELAY_S)
        )

    @router.post("/v1/checkout/embedded")
    async def razorpay_checkout(request: Request) -> HTMLResponse:
        form = {name: str(value) for name, value in (await request.form()).items()}
        order = state.order(form.get("order_id", ""))
        if form.get("key_id") != key_id or order is None or order.gateway != RAZORPAY:
            return error_page("Razorpay does not know this order of the merchant.")
        if form.get("amount") != str(order.amount_minor) or form.get("currency") != order.currency:
            return error_page("The amount or currency differs from the order.")
        if order.mandate_minor and (form.get("recurring"), form.get("customer_id")) != (
            "1",
            order.customer_id,
        ):
            return error_page("The order saves a card, but the form does not set recurring and customer_id.")
        if not form.get("callback_url") or not form.get("cancel_url"):
            return error_page("The form has no callback_url or no cancel_url.")
        title = form.get("description") or form.get("name", "")
        state.set_checkout(order, return_url=form["callback_url"], cancel_url=form["cancel_url"], title=title)
        return checkout_page(order)

    @router.get(PAGE)
    def payglocal_checkout(request: Request) -> HTMLResponse:
        try:
            order = state.order(token_codec.verify(request.query_params.get("x-gl-token", ""))["x-gl-gid"])
        except (InvalidToken, KeyError):
            order = None
        return (
            error_page("PayGlocal does not know this transaction.") if order is None else checkout_page(order)
        )

    @router.post("/sandbox/orders/{order_id}/{outcome}")
    def choose(order_id: str, outcome: Outcome, amount: Annotated[str, Form()] = "") -> HTMLResponse:
        order = state.order(order_id)
        if order is None or outcome not in available_outcomes(order):
            return error_page("The order does not exist.", 404)
        try:
            payment = apply_outcome(state, order, outcome, _minor(amount), late_s=DELAY_S)
        except (RequestRejected, ValueError) as error:
            return error_page(str(error), 409)
        redirect = return_redirects.of(order, payment)
        return page(
            "done.html", order=order, outcome=outcome, redirect=redirect, payment=payment, late_s=int(DELAY_S)
        )

    @router.get("/")
    def orders() -> HTMLResponse:
        orders = list(reversed(state.contents.orders))
        return page("orders.html", state=state, orders=orders, pending=PENDING, card_outcomes=_CARD_OUTCOMES)

    @router.post("/sandbox/cards/{token_id}/{outcome}")
    def set_card_outcome(token_id: str, outcome: str) -> Response:
        card = state.card(token_id)
        if card is None or not card.answers or outcome not in _CARD_OUTCOMES:
            return error_page("The card does not exist.", 404)
        state.set_card_outcome(card, outcome)
        return RedirectResponse("/", 303)

    @router.post("/sandbox/payments/{payment_id}/{decision}")
    def decide(payment_id: str, decision: str) -> Response:
        payment = state.payment(payment_id)
        statuses = {"capture": CAPTURED, "fail": FAILED}
        if payment is None or decision not in statuses:
            return error_page("The payment does not exist.", 404)
        try:
            state.change_status(payment, statuses[decision], "payment_failed" if decision == "fail" else None)
        except RequestRejected as error:
            return error_page(str(error), 409)
        return RedirectResponse("/", 303)

    return router


def _money(amount_minor: int, currency: str) -> str:
    whole, fraction = divmod(amount_minor, 100)
    return f"{_SYMBOLS.get(currency, currency)}{whole:,}.{fraction:02}"


def _minor(amount: str) -> int | None:
    """Return an amount entered in minor units; None if the field is empty."""
    if not amount:
        return None
    if not amount.isdecimal() or int(amount) == 0:
        raise ValueError("The other amount must be a whole number of paise or cents above 0")
    return int(amount)
