"""The repository of payments: it loads them, lets them decide, and returns results. It knows the gateways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from domain.credits.charge_history import ChargeHistory
from domain.credits.ledger import Ledger
from domain.payments.errors import GatewayNotFound, PaymentNotFound
from domain.payments.gateway import Checkout, PaymentGateway
from domain.payments.payment import Payment, evolve
from domain.shared.aggregate import Aggregate
from domain.shared.stream_keys import payment_stream


@dataclass(frozen=True)
class PaymentResult:
    """A payment after a command, and the log position at which it was read.

    `checkout` leads to the gateway's page while there is something to pay. `repeated` says that the command
    repeats an earlier one.
    """

    payment: Payment
    position: int
    checkout: Checkout | None = None
    refund_id: str | None = None
    repeated: bool = False


class PaymentReference(msgspec.Struct, frozen=True):
    """The stored response of a command: the ids of the payment and the refund."""

    payment_id: str
    refund_id: str | None = None


class PaymentRepository:
    """Loads payments from the log and runs their decisions; finds the gateways that they use."""

    def __init__(
        self, ledger: Ledger, gateways: Mapping[str, PaymentGateway], charge_history: ChargeHistory
    ) -> None:
        self.ledger = ledger
        self.charge_history = charge_history
        self.gateways = gateways
        self.runner = ledger.runner
        self.store = ledger.runner.store

    def payment(self, payment_id: str, organisation_id: str | None = None) -> Payment:
        """Return a payment as it is now. If an organisation is named, the payment must belong to it.

        Raises:
            OrganisationNotFound: there is no such organisation.
            PaymentNotFound: there is no such payment, or it belongs to another organisation.
        """
        stream = payment_stream(payment_id)

        def load() -> Payment:
            payment: Payment | None = None
            for envelope in self.store.get(stream):
                payment = evolve(payment, envelope)
            if payment is None:
                raise PaymentNotFound(payment_id=payment_id)
            return payment

        payment: Payment | None
        try:
            payment = self.store.current(stream, load)
        except PaymentNotFound:
            payment = None
        if payment is None or organisation_id not in (None, payment.terms.organisation_id):
            if organisation_id is not None:
                self.ledger.organisation(organisation_id)
            raise PaymentNotFound(payment_id=payment_id)
        return payment

    def gateway(self, name: str, currency: str | None = None) -> PaymentGateway:
        """Return a gateway.

        Raises:
            GatewayNotFound: no gateway has this name, or it does not take the currency.
        """
        gateway = self.gateways.get(name)
        if gateway is None:
            raise GatewayNotFound(f"no gateway {name!r} is set up", gateway=name)
        if currency is not None and currency not in gateway.currencies:
            raise GatewayNotFound(f"the gateway {name!r} takes no {currency}", gateway=name)
        return gateway

    def change(self, payment_id: str, change: Callable[[Payment], None]) -> PaymentResult:
        """Run a decision of a payment, and record its events.

        Raises:
            PaymentNotFound, StoreUnavailable, and the errors of `change`.
        """

        def decide() -> tuple[Sequence[Aggregate], PaymentReference]:
            payment = self.payment(payment_id)
            change(payment)
            return [payment], PaymentReference(payment_id)

        self.runner.run(decide, None, PaymentReference)
        return self.result(payment_id)

    def result(
        self,
        payment_id: str,
        *,
        checkout: Checkout | None = None,
        refund_id: str | None = None,
        repeated: bool = False,
    ) -> PaymentResult:
        """Return a payment as it is now, and the end of the log."""
        return PaymentResult(self.payment(payment_id), self.store.log_end(), checkout, refund_id, repeated)
