"""The sandbox's state in Razorpay's wire format: API entities, webhook events, reconciliation items."""

from __future__ import annotations

from typing import Any

from infra.embedded.gateway_sandbox.state import (
    AUTHORIZED,
    CANCELLED,
    CAPTURED,
    FAILED,
    Order,
    Payment,
    Refund,
    SandboxState,
)

GATEWAY = "razorpay"
_EVENTS = frozenset({"payment.authorized", "payment.captured", "payment.failed", "refund.processed"})


def order_entity(state: SandboxState, order: Order) -> dict[str, Any]:
    """Return an order in the format of the Orders API."""
    paid = state.paid_minor(order)
    attempts = len(state.payments_of(order.id))
    return {
        "id": order.id,
        "entity": "order",
        "amount": order.amount_minor,
        "amount_paid": paid,
        "amount_due": max(order.amount_minor - paid, 0),
        "currency": order.currency,
        "receipt": order.receipt,
        "offer_id": None,
        "status": "paid" if paid >= order.amount_minor else "attempted" if attempts else "created",
        "attempts": attempts,
        "notes": [],
        "created_at": order.created_at,
        **_mandate(order),
    }


def _mandate(order: Order) -> dict[str, Any]:
    if not order.mandate_minor:
        return {}
    token = {"max_amount": order.mandate_minor, "expire_at": None, "frequency": "as_presented"}
    return {"customer_id": order.customer_id, "method": "card", "token": token}


def payment_entity(state: SandboxState, payment: Payment) -> dict[str, Any]:
    """Return a payment in the format of the Payments API."""
    refunded = state.refunded_minor(payment)
    is_full = refunded >= payment.amount_minor
    failed = payment.status in {FAILED, CANCELLED}
    return {
        "id": payment.id,
        "entity": "payment",
        "amount": payment.amount_minor,
        "currency": payment.currency,
        "status": "failed" if failed else "refunded" if refunded and is_full else payment.status,
        "order_id": payment.order_id,
        "invoice_id": None,
        "international": payment.currency != "INR",
        "method": "card",
        "amount_refunded": refunded,
        "refund_status": None if not refunded else "full" if is_full else "partial",
        "captured": payment.was_captured,
        "description": None,
        "card_id": None,
        "bank": None,
        "wallet": None,
        "vpa": None,
        "email": "payer@example.com",
        "contact": "+919000090000",
        "notes": [],
        "fee": 0 if payment.was_captured else None,
        "tax": 0 if payment.was_captured else None,
        "error_code": "BAD_REQUEST_ERROR" if failed else None,
        "error_description": "Payment failed" if failed else None,
        "error_source": "bank" if failed else None,
        "error_step": "payment_authorization" if failed else None,
        "error_reason": payment.reason if failed else None,
        "acquirer_data": {},
        "created_at": payment.created_at,
        **_saved_card(state, payment),
    }


def _saved_card(state: SandboxState, payment: Payment) -> dict[str, Any]:
    card = state.card(payment.token_id)
    return {} if card is None else {"customer_id": card.customer_id, "token_id": card.token_id}


def refund_entity(state: SandboxState, refund: Refund) -> dict[str, Any]:
    """Return a refund in the format of the Refunds API."""
    payment = state.payment(refund.payment_id)
    return {
        "id": refund.id,
        "entity": "refund",
        "amount": refund.amount_minor,
        "currency": payment.currency if payment else "",
        "payment_id": refund.payment_id,
        "notes": [],
        "receipt": refund.receipt,
        "acquirer_data": {"arn": None},
        "created_at": refund.created_at,
        "batch_id": None,
        "status": "processed",
        "speed_processed": "normal",
        "speed_requested": "normal",
    }


def events(state: SandboxState, event: str, payment: Payment, refund: Refund | None) -> list[dict[str, Any]]:
    """Return the webhook events of a change."""
    order = state.order(payment.order_id)
    if order is None or order.gateway != GATEWAY or event not in _EVENTS:
        return []
    entities: dict[str, dict[str, Any]] = {"payment": {"entity": payment_entity(state, payment)}}
    if refund is not None:
        entities = {"refund": {"entity": refund_entity(state, refund)}, **entities}
    changes = [(event, entities)]
    if event == f"payment.{CAPTURED}":
        # Razorpay also sends the authorization of a payment that is captured at once, in no fixed order.
        authorized = payment_entity(state, payment) | {"status": AUTHORIZED, "captured": False}
        changes.insert(0, (f"payment.{AUTHORIZED}", {"payment": {"entity": authorized}}))
        changes.append(("order.paid", {**entities, "order": {"entity": order_entity(state, order)}}))
    return [
        {
            "entity": "event",
            "account_id": "acc_Sandbox0000000",
            "event": name,
            "contains": list(payload),
            "payload": payload,
            "created_at": int(state.clock_s()),
        }
        for name, payload in changes
    ]


def recon_items(state: SandboxState) -> list[dict[str, Any]]:
    """Return all settled items, oldest first. The sandbox settles at once and charges no fee."""
    items = []
    for payment in state.contents.payments:
        order = state.order(payment.order_id)
        if order is None or order.gateway != GATEWAY or not payment.was_captured:
            continue
        common = {"currency": payment.currency, "order_id": order.id, "order_receipt": order.receipt}
        items.append(_item("payment", payment, common | {"payment_id": None}))
        items += [
            _item("refund", refund, common | {"payment_id": payment.id})
            for refund in state.refunds_of(payment.id)
        ]
    return sorted(items, key=lambda item: item["created_at"])


def _item(kind: str, entity: Payment | Refund, common: dict[str, Any]) -> dict[str, Any]:
    amount = entity.amount_minor
    return {
        "entity_id": entity.id,
        "type": kind,
        "debit": amount if kind == "refund" else 0,
        "credit": amount if kind == "payment" else 0,
        "amount": amount,
        "fee": 0,
        "tax": 0,
        "on_hold": False,
        "settled": True,
        "created_at": entity.created_at,
        "settled_at": entity.created_at,
        "settlement_id": "setl_Sandbox0000000",
        "posted_at": None,
        "credit_type": "default",
        "description": None,
        "notes": "{}",
        "settlement_utr": None,
        "method": "card",
        "dispute_id": None,
        **common,
    }
