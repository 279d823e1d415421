"""Subscriptions to the log: the library's, with a connection outside of the pool to wait on."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from eventsourcing.postgres import PostgresSubscription

from domain.shared.event_store import EVENTS_CHANNEL
from infra.event_store.datastore import as_store_errors

if TYPE_CHECKING:
    from infra.event_store.recorder import LedgerRecorder

_LOOKS_WHETHER_STOPPED_EVERY_S: Final = 0.1


class LedgerSubscription(PostgresSubscription):
    """Yields events in the order of the log as they are committed, whichever path appended them.

    Iterating raises StoreUnavailable when the database is lost: subscribe again after the last position.
    """

    _recorder: LedgerRecorder

    def _listen(self) -> None:
        """Run in the library's listening thread.

        The library's own keeps a connection of the pool for as long as the subscription lasts, gives it back
        still listening, and misses what is committed between its first look and its LISTEN.
        """
        try:
            with as_store_errors(), closing(self._recorder.datastore.connect()) as connection:
                connection.execute(f"LISTEN {EVENTS_CHANNEL}")
                self._has_been_notified.set()
                while not self._has_been_stopped and not self._thread_error:
                    for _ in connection.notifies(timeout=_LOOKS_WHETHER_STOPPED_EVERY_S, stop_after=1):
                        self._has_been_notified.set()
        except BaseException as error:  # raised where the subscription is iterated
            if self._thread_error is None:
                self._thread_error = error
            self.stop()
