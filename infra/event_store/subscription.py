"""Subscriptions to the log: the library's subscription, which waits on a connection outside the pool."""

from __future__ import annotations

from contextlib import closing
from typing import Final

from eventsourcing.postgres import PostgresSubscription

from domain.shared.event_store import EVENTS_CHANNEL
from infra.event_store.datastore import LedgerDatastore, as_store_errors

_STOP_CHECK_INTERVAL_S: Final = 0.1


class LedgerSubscription(PostgresSubscription):
    """Yields events in the order of the log when they are committed, from every writer.

    Iteration raises StoreUnavailable if the database is lost. Then subscribe again after the last position.
    """

    def _listen(self) -> None:
        """Run in the library's listening thread.

        The library's method holds a pooled connection during the whole subscription and returns it while it
        still listens. It also misses events that are committed between its first query and its LISTEN.
        """
        datastore = self._recorder.datastore
        assert isinstance(datastore, LedgerDatastore)
        try:
            with as_store_errors(), closing(datastore.connect()) as connection:
                connection.execute(f"LISTEN {EVENTS_CHANNEL}")
                self._has_been_notified.set()
                while not self._has_been_stopped and not self._thread_error:
                    for _ in connection.notifies(timeout=_STOP_CHECK_INTERVAL_S, stop_after=1):
                        self._has_been_notified.set()
        except BaseException as error:  # the iteration of the subscription raises it
            if self._thread_error is None:
                self._thread_error = error
            self.stop()
