"""Adapter for PayGlocal's PayCollect API: signed and encrypted requests, a hosted page, status by GID.

https://docs.payglocal.in, github.com/PayGlocal-Technologies/payglocal-dev-docs. A transaction is one attempt.
Its GID identifies both the order and the payment. PayGlocal sends no webhook per payment, so the ledger
relies on the browser's return and on status requests. PayGlocal has no list of settlements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from threading import Lock
from typing import Any, Final
from urllib.parse import parse_qs, quote

import msgspec

from domain.payments.gateway import (
    Attempt,
    AttemptStatus,
    ChargeRequest,
    Checkout,
    GatewayNotification,
    GatewayRefund,
    GatewayRefundRequest,
    GatewayRefused,
    GatewayUnavailable,
    InvalidWebhookSignature,
    OpenedOrder,
    OrderRequest,
    RefundStatus,
    SettlementLine,
)
from infra.payments.gateways.payglocal_tokens import InvalidToken, PayGlocalTokens
from infra.payments.gateways.transport import Transport

LIVE_URL: Final = "https://api.payglocal.in"
TOKEN: Final = "x-gl-token"  # noqa: S105 - a field's name
CHECKOUT_ONCE: Final = "CHECKOUT_SHOWN_ONCE"

_INITIATE: Final = "/gl/v1/payments/initiate/paycollect"
_MINOR_UNITS: Final = 100  # both currencies have two decimals
_AMOUNT_MINOR_MAX: Final = 10**15
_RECENT_ORDERS_MAX: Final = 10_000
_UNTRIED: Final = "CREATED"
_STATUSES: Final = {
    "SENT_FOR_CAPTURE": AttemptStatus.CAPTURED,
    "CUSTOMER_CANCELLED": AttemptStatus.CANCELLED,
    "ABANDONED": AttemptStatus.CANCELLED,
    "ISSUER_DECLINE": AttemptStatus.FAILED,
    "GENERAL_DECLINE": AttemptStatus.FAILED,
    "GENERIC_DECLINE": AttemptStatus.FAILED,
    "CONDITIONAL_DECLINE": AttemptStatus.FAILED,
    "AUTHENTICATION_TIMEOUT": AttemptStatus.FAILED,
    "REQUEST_ERROR": AttemptStatus.FAILED,
    "SYSTEM_ERROR": AttemptStatus.FAILED,
    "CONFIG_ERROR": AttemptStatus.FAILED,
}
"""Final statuses. Any other status counts as pending, because an unknown status must not end a payment."""
_REFUND_DONE: Final = frozenset({"SENT_FOR_REFUND", "SUCCESS"})
_REFUND_FAILED: Final = frozenset({"REQUEST_ERROR", "SYSTEM_ERROR"})


class _Data(msgspec.Struct, frozen=True):
    """The data of a response.

    PayGlocal's documentation has two names for the amount, and two for the currency.
    """

    Amount: str | int | float | None = None
    Currency: str | None = None
    totalAmount: str | int | float | None = None
    txnCurrency: str | None = None
    redirectUrl: str | None = None
    refundId: str | None = None


class _Response(msgspec.Struct, frozen=True):
    status: str
    gid: str | None = None
    data: _Data | None = None


class _RecentOrders:
    """The last transactions that this process started, by payment id."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._opened: dict[str, OpenedOrder] = {}

    def add(self, payment_id: str, opened: OpenedOrder) -> None:
        with self._lock:
            self._opened[payment_id] = opened
            if len(self._opened) > _RECENT_ORDERS_MAX:
                del self._opened[next(iter(self._opened))]

    def find(self, payment_id: str) -> OpenedOrder | None:
        return self._opened.get(payment_id)


class PayGlocalGateway:
    """Implements the gateway port with PayGlocal. Threads may share it."""

    name = "payglocal"
    supports_recurring_charges = False
    settlement_delay_max = timedelta(0)

    def __init__(
        self,
        tokens: PayGlocalTokens,
        *,
        currencies: frozenset[str],
        clock: Callable[[], datetime],
        url: str = LIVE_URL,
        timeout_s: float = 10.0,
    ) -> None:
        self._tokens = tokens
        self._currencies = currencies
        self._clock = clock
        self._url = url.rstrip("/")
        self._transport = Transport(self.name, timeout_s, _explain)
        self._opened = _RecentOrders()

    @property
    def currencies(self) -> frozenset[str]:
        """ISO 4217 codes of the accepted currencies."""
        return self._currencies

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def open_order(self, request: OrderRequest) -> OpenedOrder:
        """Start a transaction, with our payment id as its `merchantTxnId`.

        PayGlocal returns the URL of its page once. This process keeps the URLs of recent transactions. If
        another process started the transaction, the order is returned without a checkout.
        """
        opened = self._opened.find(request.payment_id) or self._started(request)
        if opened is not None:
            return opened
        try:
            opened = self._start(request)
        except GatewayRefused:
            started = self._started(request)  # another process started it in the meantime
            if started is None:
                raise
            return started
        self._opened.add(request.payment_id, opened)
        return opened

    def _started(self, request: OrderRequest) -> OpenedOrder | None:
        """Return the transaction of a payment, or None."""
        found = self._find(request.payment_id)
        return None if found is None or found.gid is None else OpenedOrder(found.gid, None)

    def _start(self, request: OrderRequest) -> OpenedOrder:
        name, _, rest = request.payer.name.partition(" ")
        billing = {
            "firstName": name,
            "lastName": rest,
            "emailId": request.payer.email,
            "phoneNumber": request.payer.phone,
        }
        answer = self._post(
            _INITIATE,
            {
                "merchantTxnId": request.payment_id,
                "merchantUniqueId": request.payment_id,
                "captureTxn": True,
                "paymentData": {
                    "totalAmount": _decimal(request.amount_minor),
                    "txnCurrency": request.currency,
                    "billingData": {field: value for field, value in billing.items() if value},
                },
                "merchantCallbackURL": request.return_url,
            },
        )
        if answer.gid is None or answer.data is None or answer.data.redirectUrl is None:
            raise GatewayRefused(f"payglocal returns no page: {answer.status}", code=answer.status)
        return OpenedOrder(answer.gid, Checkout(answer.data.redirectUrl))

    def checkout(self, order_id: str, request: OrderRequest) -> Checkout:
        """Return the URL of PayGlocal's page, if this process started the transaction recently."""
        opened = self._opened.find(request.payment_id)
        if opened is not None and opened.checkout is not None:
            return opened.checkout
        raise GatewayRefused("payglocal returns the URL of its page only once", code=CHECKOUT_ONCE)

    def attempts(self, order_id: str) -> Sequence[Attempt]:
        """Return the transaction, if the payer has started to pay. It does not include refunds."""
        answer = self._status(order_id)
        if answer.status == _UNTRIED:
            return []
        return [_attempt(order_id, answer)]

    def charge(self, request: ChargeRequest) -> Attempt:
        """Refuse: this adapter saves no cards. (PayGlocal's standing instructions are not implemented.)"""
        raise GatewayRefused("payglocal cannot charge a saved card", code="CARD_NOT_KEPT")

    def forget_card(self, mandate: str) -> None:
        """Do nothing: this adapter saves no cards."""

    def verify_return(self, fields: Mapping[str, str]) -> GatewayNotification:
        """Verify the browser's return. The transaction's data comes from PayGlocal, not from the browser."""
        return self._read(fields.get(TOKEN, ""), "return")

    def verify_webhook(self, body: bytes, headers: Mapping[str, str]) -> GatewayNotification:
        """Verify a server-to-server notification: a token as a form field or a header."""
        token = headers.get(TOKEN)
        if token is None:
            try:
                token = parse_qs(body.decode("ascii"), strict_parsing=True)[TOKEN][0]
            except (ValueError, KeyError):
                raise InvalidWebhookSignature("the notification has no PayGlocal token") from None
        return self._read(token, "notice")

    def refund(self, request: GatewayRefundRequest) -> GatewayRefund:
        """Refund money, once per refund id. The refund id is the refund's `merchantTxnId`."""
        known = self._find(request.refund_id)
        if known is None:
            known = self._post(
                f"/gl/v1/payments/{quote(request.gateway_payment_id, safe='')}/refund",
                {
                    "merchantTxnId": request.refund_id,
                    "merchantUniqueId": request.refund_id,
                    "refundType": "P",
                    "paymentData": {"totalAmount": _decimal(request.amount_minor)},
                },
            )
        refund_id = known.data.refundId if known.data and known.data.refundId else request.refund_id
        return GatewayRefund(refund_id, _refund_status(known.status), request.amount_minor)

    def settlement_lines(self, first: date, last: date) -> Iterator[SettlementLine]:
        """Refuse: PayGlocal's API does not list settlements."""
        raise GatewayRefused("payglocal does not list settlements", code="NO_SETTLEMENT_LIST")

    def _read(self, token: str, kind: str) -> GatewayNotification:
        try:
            claims = self._tokens.verify(token)
        except InvalidToken:
            raise InvalidWebhookSignature("the token is not signed by PayGlocal") from None
        gid = claims.get("gid")
        if not isinstance(gid, str):
            raise InvalidWebhookSignature("the token names no transaction")
        # The token may lack the amount, so read the transaction from PayGlocal.
        attempt = _attempt(gid, self._status(gid))
        return GatewayNotification(sha256(token.encode()).hexdigest(), kind, attempt)

    def _find(self, merchant_txn_id: str) -> _Response | None:
        try:
            return self._status(merchant_txn_id)
        except GatewayRefused:
            return None

    def _status(self, gid_or_txn_id: str) -> _Response:
        path = f"/gl/v1/payments/{quote(gid_or_txn_id, safe='')}/status"
        answer = self._transport.get(self._url + path, headers=self._tokens.sign(path, self._now_ms()))
        return _read_response(answer.content)

    def _post(self, path: str, payload: object) -> _Response:
        now_ms = self._now_ms()
        body = self._tokens.encrypt(payload, now_ms)
        headers = {**self._tokens.sign(body, now_ms), "Content-Type": "text/plain"}
        return _read_response(self._transport.post(self._url + path, data=body, headers=headers).content)

    def _now_ms(self) -> int:
        return int(self._clock().timestamp() * 1_000)


def _read_response(content: bytes) -> _Response:
    try:
        return msgspec.json.decode(content, type=_Response)
    except msgspec.MsgspecError as error:
        raise GatewayUnavailable(f"payglocal's response is not a transaction: {error}") from None


def _attempt(gid: str, answer: _Response) -> Attempt:
    data = answer.data or _Data()
    status = _STATUSES.get(answer.status, AttemptStatus.PENDING)
    amount = data.totalAmount if data.totalAmount is not None else data.Amount
    return Attempt(
        gateway_payment_id=answer.gid or gid,
        order_id=answer.gid or gid,
        status=status,
        amount_minor=_minor(amount),
        currency=data.txnCurrency or data.Currency or "",
        reason=answer.status if status in {AttemptStatus.FAILED, AttemptStatus.CANCELLED} else None,
    )


def _refund_status(status: str) -> RefundStatus:
    if status in _REFUND_DONE:
        return RefundStatus.DONE
    return RefundStatus.FAILED if status in _REFUND_FAILED else RefundStatus.PENDING


def _decimal(amount_minor: int) -> str:
    return f"{amount_minor // _MINOR_UNITS}.{amount_minor % _MINOR_UNITS:02}"


def _minor(amount: str | float | None) -> int:
    try:
        minor = Decimal(str(amount)) * _MINOR_UNITS
        if 0 <= minor <= _AMOUNT_MINOR_MAX and minor == int(minor):
            return int(minor)
    except InvalidOperation:
        pass
    raise GatewayUnavailable("payglocal's response has no amount in whole minor units")


def _explain(body: dict[str, Any]) -> tuple[str, str]:
    return str(body.get("reasonCode") or body.get("status") or ""), str(body.get("message") or "")
