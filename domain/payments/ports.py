"""What payments need from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from domain.payments.events import FlagKey
from domain.payments.gateway import Payer
from domain.payments.quotes import PurchaseQuote


class QuoteStore(Protocol):
    """What lies beside the log: quotes, and what people wrote about a payment."""

    def payment_lock(self, payment_id: str) -> AbstractContextManager[None]:
        """Let one at a time have the gateway act on a payment, whichever process it is in.

        It opens the order, charges a card, or gives money back.

        Raises:
            StoreUnavailable: the database does not answer, or the others took too long.
        """

    def payer(self, organisation_id: str) -> Payer:
        """Return who pays, as the billing details on file say; nobody where there are none."""

    def save_quote(self, quote: PurchaseQuote) -> None:
        """Keep a quote until it has long expired."""

    def quote(self, organisation_id: str, quote_id: str) -> PurchaseQuote | None:
        """Return a quote of an organisation."""

    def save_remark(self, organisation_id: str, payment_id: str, remark: str) -> None:
        """Keep what a custom payment is said to be for; the first remark stays."""

    def save_note(self, organisation_id: str, payment_id: str, key: FlagKey, note: str) -> None:
        """Keep what staff wrote when they settled a flag; the latest note stays."""

    def notes(self, payment_ids: Sequence[str]) -> Mapping[tuple[str, FlagKey], str]:
        """Return what is kept about flags of payments, by payment and flag."""

    def remarks(self, organisation_id: str, payment_ids: Sequence[str]) -> Mapping[str, str]:
        """Return what is kept about payments of an organisation, by payment."""


class ReturnUrls(msgspec.Struct, frozen=True):
    """Where a gateway's page sends the browser: with what it has to say, or where the payer gave up."""

    return_url: str
    cancel_url: str
