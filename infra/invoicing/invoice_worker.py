"""Issues what has become due: a payment completed, money went back, billing details were put on file.

Which payments may lack a document is read from their projection; what they lack is decided from their own
history, under the write lock: any number of these may run, and nothing is issued twice.
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
    """Looks every other second for what is due. Used by one thread."""

    def __init__(self, invoicing: Invoicing, clock: Callable[[], datetime]) -> None:
        self._invoicing = invoicing
        self._clock = clock

    def run(self, stop: Event) -> None:
        """Issue what is due until told to stop; a lost database is waited for, what fails is tried again."""
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
        """Issue what is due now; tell whether any payment failed, of which the log says why.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """
        issued = self._invoicing.issue_due(None, context=CommandContext(self._clock(), None, _CAUSE))
        for document in issued.documents:
            log.info("issued %s for payment %s", document.number, document.payment_id)
        for payment_id, error in issued.failures:
            log.error("payment %s has no invoice: %s", payment_id, error)
        return bool(issued.failures)
