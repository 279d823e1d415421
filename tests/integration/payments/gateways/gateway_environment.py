"""A ledger that sells credits through the sandbox, and an independent recount of the sold credits."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import psycopg

from domain.credits.ledger import Ledger
from domain.payments.gateway import Checkout, PaymentGateway
from domain.payments.payment import Payment
from domain.payments.ports import ReturnUrls
from domain.payments.quotes import PurchasePlan
from domain.payments.refunds import PaymentRefunds
from domain.payments.service import Payments
from domain.payments.tracking import PaymentTracking
from domain.shared.command_context import CommandContext
from domain.shared.money import Currency
from infra.embedded.gateway_sandbox.state import SandboxState
from infra.payments.reconciliation import Reconciler
from infra.service.composition import credits_of, payments_of
from projections.engine.runner import ProjectionRunner
from projections.registry import ALL_PROJECTIONS

MERCHANT_URL = "http://127.0.0.1:9"
_numbers = itertools.count(1)


@dataclass
class Sale:
    """A started payment, as the payer sees it."""

    payment_id: str
    organisation_id: str
    checkout: Checkout
    credits: int


@dataclass
class GatewayEnvironment:
    """Sells credits. `sales` has all payments that were started here."""

    ledger: Ledger
    payments: Payments
    tracking: PaymentTracking
    refunds: PaymentRefunds
    conninfo: str
    sales: list[Sale] = field(default_factory=list)

    def request(self) -> CommandContext:
        return CommandContext(datetime.now(UTC), "u-1", f"request-{next(_numbers)}")

    def open(self, currency: Currency) -> str:
        """Open an organisation without credits."""
        organisation_id = f"org-{next(_numbers)}"
        credits_of(self.ledger).commands.open_organisation(
            organisation_id, time_zone="UTC", currency=currency, trial_credits=0, context=self.request()
        )
        return organisation_id

    def quote(self, organisation_id: str, credits_count: int = 1_000) -> str:
        """Return a quote's id."""
        quote_id = f"quote-{next(_numbers)}"
        self.payments.quote(
            organisation_id,
            PurchasePlan.PAY_AS_YOU_GO,
            credits_count,
            quote_id=quote_id,
            context=self.request(),
        )
        return quote_id

    def begin(self, organisation_id: str, gateway: str, *, quote_id: str, credits_count: int = 1_000) -> Sale:
        """Start the payment of a quote, and open the gateway's page."""
        result = self.payments.begin(
            organisation_id,
            quote_id,
            gateway,
            payment_id=f"{quote_id}-{int(datetime.now(UTC).timestamp())}",
            context=self.request(),
        )
        assert result.checkout is not None
        payment_id = result.payment.terms.payment_id
        sale = Sale(payment_id, organisation_id, result.checkout, credits_count)
        self.sales.append(sale)
        return sale

    def sell(self, gateway: str, credits_count: int = 1_000, currency: Currency = Currency.USD) -> Sale:
        """Start a sale of credits to a new organisation."""
        organisation_id = self.open(currency)
        quote_id = self.quote(organisation_id, credits_count)
        return self.begin(organisation_id, gateway, quote_id=quote_id, credits_count=credits_count)

    def sell_custom(self, gateway: str, amount_minor: int) -> Sale:
        """Request a custom payment from a new organisation. It adds no credits."""
        organisation_id = self.open(Currency.USD)
        result = self.payments.begin_custom(
            organisation_id,
            amount_minor,
            "as agreed",
            gateway,
            payment_id=f"custom-{next(_numbers)}-{int(datetime.now(UTC).timestamp())}",
            context=self.request(),
        )
        assert result.checkout is not None
        sale = Sale(result.payment.terms.payment_id, organisation_id, result.checkout, 0)
        self.sales.append(sale)
        return sale

    def handle_return(self, sale: Sale, fields: Mapping[str, str]) -> Payment:
        return self.tracking.handle_return(sale.payment_id, fields, self.request()).payment

    def payment(self, sale: Sale) -> Payment:
        return self.payments.payment(sale.payment_id)

    def balance(self, sale: Sale) -> int:
        return self.ledger.organisation(sale.organisation_id).balance

    def differences(self, gateway: str, first: date | None = None, last: date | None = None) -> Counter[str]:
        """Return the number of differences between the gateway and the ledger, by kind."""
        ProjectionRunner(self.conninfo, ALL_PROJECTIONS).catch_up()
        now = datetime.now(UTC)
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            reconciler = Reconciler(self.payments.gateways[gateway], self.ledger.runner.store, connection)
            # The sandbox settles immediately, so even the newest payments can be compared.
            later = now + timedelta(days=30)
            found = reconciler.differences(first or now.date() - timedelta(days=1), last or now.date(), later)
        return Counter(difference.kind.value for difference in found)

    def assert_every_credit_was_paid_for(self, state: SandboxState) -> None:
        """Recount the payments from the gateway's records alone, and compare them with the balances."""
        for sale in self.sales:
            order = next(order for order in state.contents.orders if order.receipt == sale.payment_id)
            paid = [
                payment
                for payment in state.payments_of(order.id)
                if payment.was_captured and payment.amount_minor == order.amount_minor
            ]
            back_minor = state.refunded_minor(paid[0]) if paid else 0
            bought = sale.credits if paid else 0
            returned = sale.credits * back_minor // order.amount_minor
            assert self.balance(sale) == bought - returned, sale


def open_gateway_env(
    ledger: Ledger, gateways: Mapping[str, PaymentGateway], conninfo: str
) -> GatewayEnvironment:
    """Open a gateway environment on a ledger."""

    def return_urls(payment_id: str) -> ReturnUrls:
        back = f"{MERCHANT_URL}/credits/payments/{payment_id}/return"
        return ReturnUrls(back, f"{back}?cancelled=1")

    services = payments_of(ledger, gateways, return_urls)
    return GatewayEnvironment(ledger, services.payments, services.tracking, services.refunds, conninfo)
