"""The sandbox's pages: the checkout of both gateways, and the list of all orders."""

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
_CARD_ANSWERS: Final = {CAPTURED: "is charged", FAILED: "is refused", PENDING: "is left pending"}
_TITLES: Final = {"razorpay": "Razorpay", "payglocal": "PayGlocal"}


def checkout_router(
    state: SandboxState, key_id: str, token_codec: PayGlocalTokenCodec, return_redirects: ReturnRedirects
) -> APIRouter:
    """Return the pages' routes."""
    router = APIRouter(default_response_class=HTMLResponse)
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=select_autoescape()
    )
    templates.filters["money"] = _money
    templates.globals["title_of"] = _TITLES.__getitem__

    def page(name: str, status: int = 200, **facts: Any) -> HTMLResponse:
        return HTMLResponse(templates.get_template(name).render(facts), status)

    def sorry(sentence: str, status: int = 400) -> HTMLResponse:
        return page("sorry.html", status, sentence=sentence)

    def choice(order: Order) -> HTMLResponse:
        return page(
            "checkout.html", order=order, available_outcomes=available_outcomes(order), late_s=int(DELAY_S)
        )

    @router.post("/v1/checkout/embedded")
    async def razorpay_checkout(request: Request) -> HTMLResponse:
        form = {name: str(value) for name, value in (await request.form()).items()}
        order = state.order(form.get("order_id", ""))
        if form.get("key_id") != key_id or order is None or order.gateway != RAZORPAY:
            return sorry("Razorpay knows no such order of this merchant.")
        if form.get("amount") != str(order.amount_minor) or form.get("currency") != order.currency:
            return sorry("The amount is not the one of the order.")
        if order.mandate_minor and (form.get("recurring"), form.get("customer_id")) != (
            "1",
            order.customer_id,
        ):
            return sorry("The order keeps a card, and the form does not say so.")
        if not form.get("callback_url") or not form.get("cancel_url"):
            return sorry("The form names no callback_url or cancel_url.")
        title = form.get("description") or form.get("name", "")
        state.set_checkout(order, return_url=form["callback_url"], cancel_url=form["cancel_url"], title=title)
        return choice(order)

    @router.get(PAGE)
    def payglocal_checkout(request: Request) -> HTMLResponse:
        try:
            order = state.order(token_codec.verify(request.query_params.get("x-gl-token", ""))["x-gl-gid"])
        except (InvalidToken, KeyError):
            order = None
        return sorry("PayGlocal knows no such transaction.") if order is None else choice(order)

    @router.post("/sandbox/orders/{order_id}/{outcome}")
    def choose(order_id: str, outcome: Outcome, amount: Annotated[str, Form()] = "") -> HTMLResponse:
        order = state.order(order_id)
        if order is None or outcome not in available_outcomes(order):
            return sorry("There is no such order.", 404)
        try:
            payment = apply_outcome(state, order, outcome, _minor(amount), late_s=DELAY_S)
        except (RequestRejected, ValueError) as error:
            return sorry(str(error), 409)
        way = return_redirects.of(order, payment)
        return page("done.html", order=order, outcome=outcome, way=way, payment=payment, late_s=int(DELAY_S))

    @router.get("/")
    def orders() -> HTMLResponse:
        orders = list(reversed(state.contents.orders))
        return page("orders.html", state=state, orders=orders, pending=PENDING, answers=_CARD_ANSWERS)

    @router.post("/sandbox/cards/{token_id}/{answer}")
    def set_card_outcome(token_id: str, answer: str) -> Response:
        card = state.card(token_id)
        if card is None or not card.answers or answer not in _CARD_ANSWERS:
            return sorry("There is no such card.", 404)
        state.set_card_outcome(card, answer)
        return RedirectResponse("/", 303)

    @router.post("/sandbox/payments/{payment_id}/{decision}")
    def decide(payment_id: str, decision: str) -> Response:
        payment = state.payment(payment_id)
        statuses = {"capture": CAPTURED, "fail": FAILED}
        if payment is None or decision not in statuses:
            return sorry("There is no such payment.", 404)
        try:
            state.change_status(payment, statuses[decision], "payment_failed" if decision == "fail" else None)
        except RequestRejected as error:
            return sorry(str(error), 409)
        return RedirectResponse("/", 303)

    return router


def _money(amount_minor: int, currency: str) -> str:
    whole, fraction = divmod(amount_minor, 100)
    return f"{_SYMBOLS.get(currency, currency)}{whole:,}.{fraction:02}"


def _minor(amount: str) -> int | None:
    """Return an amount typed in minor units; None where nothing was."""
    if not amount:
        return None
    if not amount.isdecimal() or int(amount) == 0:
        raise ValueError("The other amount is a whole number of paise or cents, above 0")
    return int(amount)
