"""Payments in the log: how they are found, changed, and answered about; and what they need beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import msgspec

from domain.aggregate import Aggregate
from domain.errors import GatewayUnknown, PaymentUnknown
from domain.gateway import Checkout, Payer, PaymentGateway
from domain.identity import payment_stream
from domain.ledger import Ledger
from domain.payment import Payment, evolve
from domain.payment_facts import FlagKey
from domain.purchases import PurchaseQuote


class Desk(Protocol):
    """What lies beside the log: quotes, and what people wrote about a payment."""

    def turn(self, payment_id: str) -> AbstractContextManager[None]:
        """Let one at a time have the gateway act on a payment, whichever process it is in.

        It opens the order, charges a card, or gives money back.

        Raises:
            StoreUnavailable: the database does not answer, or the others took too long.
        """

    def payer(self, organisation_id: str) -> Payer:
        """Return who pays, as the billing details on file say; nobody where there are none."""

    def keep_quote(self, quote: PurchaseQuote) -> None:
        """Keep a quote until it has long expired."""

    def quote(self, organisation_id: str, quote_id: str) -> PurchaseQuote | None:
        """Return a quote of an organisation."""

    def keep_remark(self, organisation_id: str, payment_id: str, remark: str) -> None:
        """Keep what a custom payment is said to be for; the first remark stays."""

    def keep_note(self, organisation_id: str, payment_id: str, key: FlagKey, note: str) -> None:
        """Keep what staff wrote when they settled a flag; the latest note stays."""

    def notes(self, payment_ids: Sequence[str]) -> Mapping[tuple[str, FlagKey], str]:
        """Return what is kept about flags of payments, by payment and flag."""

    def remarks(self, organisation_id: str, payment_ids: Sequence[str]) -> Mapping[str, str]:
        """Return what is kept about payments of an organisation, by payment."""


class Ways(msgspec.Struct, frozen=True):
    """Where a gateway's page sends the browser: with what it has to say, or where the payer gave up."""

    return_url: str
    cancel_url: str


@dataclass(frozen=True)
class PaymentStanding:
    """A payment after a command, and a log position that its answer is true at.

    `checkout` is the way to the gateway's page, while there is something to pay; `repeated` tells that the
    command was given before.
    """

    payment: Payment
    position: int
    checkout: Checkout | None = None
    refund_id: str | None = None
    repeated: bool = False


class Named(msgspec.Struct, frozen=True):
    """What a command answers with, and what is kept of it for repeats."""

    payment_id: str
    refund_id: str | None = None


class PaymentBook:
    """Payments as the log has them, and the gateways that they are paid through."""

    def __init__(self, ledger: Ledger, gateways: Mapping[str, PaymentGateway]) -> None:
        self.ledger = ledger
        self.gateways = gateways
        self.recording = ledger.recording
        self.store = ledger.recording.store

    def payment(self, payment_id: str, organisation_id: str | None = None) -> Payment:
        """Return a payment as it is now, of an organisation if one is named.

        Raises:
            OrganisationUnknown: there is no such organisation.
            PaymentUnknown: there is none, or it is another organisation's.
        """
        payment: Payment | None = None
        for event in self.store.get(payment_stream(payment_id)):
            payment = evolve(payment, event)
        if payment is None or organisation_id not in (None, payment.terms.organisation_id):
            if organisation_id is not None:
                self.ledger.organisation(organisation_id)
            raise PaymentUnknown(payment_id=payment_id)
        return payment

    def gateway(self, name: str, currency: str | None = None) -> PaymentGateway:
        """Return a gateway.

        Raises:
            GatewayUnknown: there is none of this name, or it does not take the currency.
        """
        gateway = self.gateways.get(name)
        if gateway is None:
            raise GatewayUnknown(f"no gateway {name!r} is set up", gateway=name)
        if currency is not None and currency not in gateway.currencies:
            raise GatewayUnknown(f"the gateway {name!r} takes no {currency}", gateway=name)
        return gateway

    def change(self, payment_id: str, change: Callable[[Payment], None]) -> PaymentStanding:
        """Let a payment decide, and record it.

        Raises:
            PaymentUnknown, StoreUnavailable, and whatever it raises.
        """

        def decide() -> tuple[Sequence[Aggregate], Named]:
            payment = self.payment(payment_id)
            change(payment)
            return [payment], Named(payment_id)

        self.recording.record(decide, None, Named)
        return self.standing(payment_id)

    def standing(
        self,
        payment_id: str,
        *,
        checkout: Checkout | None = None,
        refund_id: str | None = None,
        repeated: bool = False,
    ) -> PaymentStanding:
        """Return where a payment stands now."""
        return PaymentStanding(self.payment(payment_id), self.store.log_end(), checkout, refund_id, repeated)
