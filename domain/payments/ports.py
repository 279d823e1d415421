"""The ports of payments, besides the gateways: see `domain.payments.gateway`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from domain.payments.events import FlagKey
from domain.payments.gateway import Payer
from domain.payments.quotes import PurchaseQuote


class QuoteStore(Protocol):
    """What is stored outside the log: quotes, remarks on payments, and notes on flags."""

    def payment_lock(self, payment_id: str) -> AbstractContextManager[None]:
        """Lock a payment across processes, while a gateway opens its order, charges a card or refunds it.

        Raises:
            StoreUnavailable: the database does not answer, or the wait for the lock took too long.
        """

    def payer(self, organisation_id: str) -> Payer:
        """Return the payer from the billing details on file; an empty payer if there are none."""

    def save_quote(self, quote: PurchaseQuote) -> None:
        """Store a quote, until some time after it has expired."""

    def quote(self, organisation_id: str, quote_id: str) -> PurchaseQuote | None:
        """Return a quote of an organisation."""

    def save_remark(self, organisation_id: str, payment_id: str, remark: str) -> None:
        """Store what a custom payment is for. The first remark stays."""

    def save_note(self, organisation_id: str, payment_id: str, key: FlagKey, note: str) -> None:
        """Store the note of staff who settled a flag. The latest note stays."""

    def notes(self, payment_ids: Sequence[str]) -> Mapping[tuple[str, FlagKey], str]:
        """Return the notes on flags of payments, by payment id and flag."""

    def remarks(self, organisation_id: str, payment_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the remarks on payments of an organisation, by payment id."""


class ReturnUrls(msgspec.Struct, frozen=True):
    """Where a gateway's page sends the browser: after an attempt, or when the payer cancels."""

    return_url: str
    cancel_url: str
