"""Stores quotes, remarks on custom payments, and notes on settled flags in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final

import msgspec
from psycopg import Connection
from psycopg.rows import tuple_row

from domain.credits.ledger import Ledger
from domain.payments.events import Flag, FlagKey
from domain.payments.gateway import Payer
from domain.payments.quotes import PurchaseQuote
from domain.shared.stream_keys import stream_id
from infra.event_store.datastore import as_store_errors
from infra.event_store.recorder import event_store_of

_LOCK_TIMEOUT_S: Final = 30
_LOCK_NAMESPACE: Final = 0x5455_524E  # "TURN"
_TAKE_LOCK: Final = "SELECT pg_advisory_lock(hashtextextended(%s, %s))"
_PAYER: Final = """
    SELECT details ->> 'name', details ->> 'email', coalesce(details ->> 'phone', '')
    FROM ledger.billing_details WHERE stream = %s
"""
_INSERT_QUOTE: Final = """
    INSERT INTO ledger.purchase_quotes (quote_id, organisation_id, body, expires_at) VALUES (%s, %s, %s, %s)
"""
_DELETE_EXPIRED_QUOTES: Final = (
    "DELETE FROM ledger.purchase_quotes WHERE expires_at < now() - interval '7 days'"
)
_QUOTE: Final = "SELECT body FROM ledger.purchase_quotes WHERE quote_id = %s AND organisation_id = %s"
_INSERT_REMARK: Final = """
    INSERT INTO ledger.payment_remarks (payment_id, organisation_id, remark) VALUES (%s, %s, %s)
    ON CONFLICT DO NOTHING
"""
_REMARKS: Final = """
    SELECT payment_id, remark FROM ledger.payment_remarks
    WHERE organisation_id = %s AND payment_id = ANY(%s)
"""
_UPSERT_NOTE: Final = """
    INSERT INTO ledger.payment_flag_notes
        (payment_id, flag, gateway_payment_id, amount_minor, organisation_id, note)
    VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (payment_id, flag, gateway_payment_id, amount_minor) DO UPDATE SET note = excluded.note
"""
_NOTES: Final = """
    SELECT payment_id, flag, gateway_payment_id, amount_minor, note FROM ledger.payment_flag_notes
    WHERE payment_id = ANY(%s)
"""


class PostgresQuoteStore:
    """Implements `domain.payments.ports.QuoteStore` on the ledger's connections."""

    def __init__(self, ledger: Ledger) -> None:
        self._datastore = event_store_of(ledger).recorder.datastore

    @contextmanager
    def payment_lock(self, payment_id: str) -> Iterator[None]:
        """Hold a payment's lock. It uses a new connection, so that waiting does not block the pool."""
        with as_store_errors(), closing(self._datastore.connect()) as connection:
            connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT_S}s'")
            connection.execute(_TAKE_LOCK, (payment_id, _LOCK_NAMESPACE))
            yield

    def payer(self, organisation_id: str) -> Payer:
        """Return the payer from the organisation's billing details; an empty payer if there are none."""
        with self._datastore.get_connection() as connection:
            rows = _rows(connection, _PAYER, (stream_id(organisation_id),))
        return Payer(*rows[0]) if rows else Payer()

    def save_quote(self, quote: PurchaseQuote) -> None:
        """Store a quote, and delete quotes that expired more than a week ago."""
        body = msgspec.json.encode(quote)
        with self._datastore.get_connection() as connection:
            connection.execute(_DELETE_EXPIRED_QUOTES)
            connection.execute(_INSERT_QUOTE, (quote.quote_id, quote.organisation_id, body, quote.expires_at))

    def quote(self, organisation_id: str, quote_id: str) -> PurchaseQuote | None:
        """Return a quote of an organisation."""
        with self._datastore.get_connection() as connection:
            row = _rows(connection, _QUOTE, (quote_id, organisation_id))
        return msgspec.json.decode(row[0][0], type=PurchaseQuote) if row else None

    def save_remark(self, organisation_id: str, payment_id: str, remark: str) -> None:
        """Store the remark on a custom payment. The first remark stays."""
        with self._datastore.get_connection() as connection:
            connection.execute(_INSERT_REMARK, (payment_id, organisation_id, remark))

    def remarks(self, organisation_id: str, payment_ids: Sequence[str]) -> dict[str, str]:
        """Return the remarks of an organisation's payments, by payment."""
        with self._datastore.get_connection() as connection:
            return dict(_rows(connection, _REMARKS, (organisation_id, list(payment_ids))))

    def save_note(self, organisation_id: str, payment_id: str, key: FlagKey, note: str) -> None:
        """Store the note that staff wrote when they settled a flag."""
        with self._datastore.get_connection() as connection:
            connection.execute(_UPSERT_NOTE, (payment_id, *key, organisation_id, note))

    def notes(self, payment_ids: Sequence[str]) -> dict[tuple[str, FlagKey], str]:
        """Return the notes on flags of payments, by payment and flag."""
        with self._datastore.get_connection() as connection:
            rows = _rows(connection, _NOTES, (list(payment_ids),))
        return {
            (payment_id, FlagKey(Flag(flag), attempt, amount_minor)): note
            for payment_id, flag, attempt, amount_minor, note in rows
        }


def _rows(connection: Connection[Any], query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return connection.cursor(row_factory=tuple_row).execute(query, values).fetchall()
