"""Exports of usage and purchases as files: complete, streamed, and safe to open in a spreadsheet.

A row has whole numbers, and times in UTC and in the organisation's time zone. If a run is charged during the
export, the file has its old or its new values. A run that existed at the start of the export is never
missing.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from api.pages.credits.overview import KINDS, Tab
from api.pages.shell import labels
from api.pages.shell.page import Page, PageDep
from api.pages.shell.routing import PageRoute
from domain.identity.people import ActorNames
from projections.credits import queries as credit_queries
from projections.credits.read_models import (
    GrantDetails,
    PurchaseDetails,
    PurchaseRefundDetails,
    RefundDetails,
    Transaction,
    TransactionKind,
)

ROWS_PER_PAGE: Final = 500
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_MEDIA_TYPES: Final = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}

_COMMON: Final = ("type", "credits", "event", "event_ids", "occurred_at", "local_time", "reference")
_COLUMNS: Final = {
    "usage": (*_COMMON, "usage_types", "photos", "user"),
    "purchases": (*_COMMON, "gateway", "payment_id", "order_id", "unit_price_millionths", "amount_minor",
                  "tax_minor", "currency", "reason"),
}  # fmt: skip

router = APIRouter(route_class=PageRoute, include_in_schema=False)

Row = dict[str, Any]
_Name = Literal["usage.csv", "usage.jsonl", "purchases.csv", "purchases.jsonl"]


@router.get("/credits/export/{name}")
def export(page: PageDep, name: _Name) -> Response:
    """Send a complete list as a file."""
    tab, _, kind = name.partition(".")
    balance = page.view(credit_queries.balance)  # before streaming starts, so that an error is still a page
    rows = _rows(page, "usage" if tab == "usage" else "purchases", ZoneInfo(balance.time_zone))
    write: Callable[[Iterable[Row], tuple[str, ...]], Iterator[str]] = _csv if kind == "csv" else _jsonl
    today = page.services.clock().astimezone(ZoneInfo(balance.time_zone)).date()
    return StreamingResponse(
        write(rows, _COLUMNS[tab]),
        media_type=_MEDIA_TYPES[kind],
        headers={"Content-Disposition": f'attachment; filename="{tab}-{today}.{kind}"'},
    )


def _rows(page: Page, tab: Tab, zone: ZoneInfo) -> Iterator[Row]:
    cursor: str | None = None
    seen: set[str] = set()
    while True:
        listed = page.view(credit_queries.transactions, KINDS[tab], cursor, ROWS_PER_PAGE)
        names = page.names([transaction.actor for transaction in listed.transactions])
        for transaction in listed.transactions:
            # A late message moves its run back in time, perhaps to a later page.
            if transaction.reference not in seen:
                yield _row(transaction, names, zone)
        seen = {transaction.reference for transaction in listed.transactions}
        cursor = listed.next_cursor
        if cursor is None:
            return


def _row(transaction: Transaction, names: ActorNames, zone: ZoneInfo) -> Row:
    row: Row = {
        "type": labels.TRANSACTION_TYPES[transaction.type],
        "credits": transaction.credits,
        "event": transaction.event_name,
        "event_ids": transaction.event_ids,
        "occurred_at": _iso(transaction.occurred_at),
        "local_time": transaction.occurred_at.astimezone(zone).isoformat(sep=" ", timespec="seconds"),
        "reference": transaction.reference,
    }
    if transaction.kind is TransactionKind.USAGE:
        types = [labels.USAGE_TYPES[each] for each in transaction.usage_types]
        return {
            **row,
            "usage_types": types,
            "photos": transaction.photos,
            "user": names.of(transaction.actor),
        }
    return {**row, **_details(transaction)}


def _details(transaction: Transaction) -> Row:
    match transaction.details:
        case PurchaseDetails() as purchase:
            return {
                "gateway": labels.gateway(purchase.gateway),
                "payment_id": purchase.payment_id,
                "order_id": purchase.order_id,
                "unit_price_millionths": purchase.unit_price_millionths,
                "amount_minor": purchase.amount_minor,
                "tax_minor": purchase.tax_minor,
                "currency": purchase.currency.value,
            }
        case PurchaseRefundDetails() as refund:
            return {
                "payment_id": refund.payment_id,
                "amount_minor": refund.amount_minor,
                "tax_minor": refund.tax_minor,
                "currency": refund.currency,
            }
        case GrantDetails() | RefundDetails() as details:
            return {"reason": details.reason}
        case _:
            return {}


def _csv(rows: Iterable[Row], columns: tuple[str, ...]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for number, row in enumerate(rows, start=1):
        writer.writerow([_cell(row.get(column)) for column in columns])
        if number % ROWS_PER_PAGE == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _jsonl(rows: Iterable[Row], columns: tuple[str, ...]) -> Iterator[str]:
    for row in rows:
        yield json.dumps({column: row.get(column) for column in columns}, ensure_ascii=False) + "\n"


def _cell(value: object) -> str | int:
    """Return a cell that no spreadsheet interprets as a formula. Integers come from us and stay numbers."""
    if isinstance(value, int):
        return value
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _iso(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
