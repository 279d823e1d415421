"""Issues due documents: after a payment, a refund, or new billing details.

The projection lists the payments that may lack a document. The payment's events decide what is missing, under
the write lock. So any number of workers may run, and no document is issued twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from threading import Event
from typing import Final

from domain.invoicing.service import Invoicing
from domain.shared.backoff import Backoff
from domain.shared.command_context import CommandContext
from domain.shared.errors import StoreUnavailable

EVERY_S: Final = 2.0
_BACKOFF_MAX_S: Final = 30.0
_CAUSE: Final = "invoice-due"

log = logging.getLogger(__name__)


class InvoiceWorker:
    """Issues due documents every two seconds. One thread uses it."""

    def __init__(self, invoicing: Invoicing, clock: Callable[[], datetime]) -> None:
        self._invoicing = invoicing
        self._clock = clock

    def run(self, stop: Event) -> None:
        """Issue due documents until `stop` is set. Retry failures; wait for the database if it is lost."""
        wait = Backoff(EVERY_S, _BACKOFF_MAX_S)
        while not stop.wait(wait.next_s):
            try:
                failed = self.issue_due()
            except StoreUnavailable as error:
                log.warning("invoices cannot be issued: %s", error)
                failed = True
            if failed:
                wait.advance()
            else:
                wait.reset()

    def issue_due(self) -> bool:
        """Issue the documents that are due now. Return whether any payment failed; the log gives the reasons.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        issued = self._invoicing.issue_due(None, context=CommandContext(self._clock(), None, _CAUSE))
        for document in issued.documents:
            log.info("issued %s for payment %s", document.number, document.payment_id)
        for payment_id, error in issued.failures:
            log.error("payment %s has no invoice: %s", payment_id, error)
        return bool(issued.failures)
