"""The sender's totals of published messages. The ledger must reach the same totals.

This module shares no code with the ledger. Only acknowledged messages count. Memory grows by about 300 bytes
per message, because exact totals require every counted message id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from infra.simulator.rates import Rates, whole_credits
from infra.simulator.wire import Outgoing, Usage


@dataclass(slots=True)
class OrganisationTotals:
    """Totals of one organisation's messages.

    `messages` includes repeats but not conflicting messages. `photos` and `expected_credits` count each
    message id once. `charged_runs` counts the runs of at least one credit.
    """

    messages: int = 0
    unique_messages: int = 0
    conflicting: int = 0
    photos: int = 0
    expected_credits: int = 0
    charged_runs: int = 0
    photos_of_runs: Counter[tuple[str, str, int]] = field(default_factory=Counter, repr=False)
    credits_of_runs: Counter[str] = field(default_factory=Counter, repr=False)


class SentTotals:
    """Counts acknowledged messages. Other threads may read it at any time."""

    def __init__(self, rates: Rates | None = None) -> None:
        self._rates = rates if rates is not None else Rates()
        self._lock = Lock()
        self._totals: dict[str, OrganisationTotals] = {}
        self._bodies: dict[tuple[str, str], int] = {}
        self._malformed: Counter[str] = Counter()
        self._last_offsets: dict[int, int] = {}
        self._unconfirmed: list[dict[str, str]] = []

    def acknowledge(self, record: Outgoing, partition: int, offset: int) -> None:
        """Count an acknowledged record. Call it in the order of the partition."""
        with self._lock:
            self._last_offsets[partition] = offset
            if record.malformed_kind is not None:
                self._malformed[record.malformed_kind] += 1
            else:
                self._count(record.usage)

    def set_unconfirmed(self, records: Iterable[Outgoing]) -> None:
        """Store the records without acknowledgement. The broker may have them or not."""
        with self._lock:
            self._unconfirmed = [
                {
                    "organisation_id": record.usage.organisation_id,
                    "source": record.usage.source,
                    "id": record.usage.message_id,
                }
                for record in records
            ]

    @property
    def unconfirmed(self) -> int:
        """Number of records without acknowledgement."""
        return len(self._unconfirmed)

    @property
    def acknowledged(self) -> int:
        """Number of acknowledged records, including malformed and conflicting ones."""
        with self._lock:
            return self._acknowledged()

    def as_dict(self) -> dict[str, Any]:
        """Return the totals as JSON values."""
        with self._lock:
            return {
                "acknowledged": self._acknowledged(),
                "organisations": {
                    organisation_id: {
                        "messages": totals.messages,
                        "unique_messages": totals.unique_messages,
                        "conflicting": totals.conflicting,
                        "photos": totals.photos,
                        "expected_credits": totals.expected_credits,
                        "charged_runs": totals.charged_runs,
                    }
                    for organisation_id, totals in sorted(self._totals.items())
                },
                "malformed": dict(sorted(self._malformed.items())),
                "conflicting": sum(totals.conflicting for totals in self._totals.values()),
                "last_offsets": {str(number): last for number, last in sorted(self._last_offsets.items())},
                "unconfirmed": list(self._unconfirmed),
            }

    def _acknowledged(self) -> int:
        counted = sum(totals.messages + totals.conflicting for totals in self._totals.values())
        return counted + self._malformed.total()

    def _count(self, usage: Usage) -> None:
        totals = self._totals.setdefault(usage.organisation_id, OrganisationTotals())
        body = hash(
            (
                usage.organisation_id,
                usage.run_id,
                usage.usage_type,
                usage.photos,
                usage.ai_search,
                usage.event_id,
            )
        )
        identity = usage.source, usage.message_id
        first_body = self._bodies.get(identity)
        if first_body is None:
            self._bodies[identity] = body
            totals.messages += 1
            totals.unique_messages += 1
            self._charge(totals, usage)
        elif first_body == body:
            totals.messages += 1
        else:
            totals.conflicting += 1

    def _charge(self, totals: OrganisationTotals, usage: Usage) -> None:
        """Add the photos to their run. Credits are rounded up per run, not per message."""
        rate_millionths = self._rates.rate_millionths(usage.usage_type, ai_search=usage.ai_search)
        run_and_rate = (usage.run_id, usage.usage_type, rate_millionths)
        before = whole_credits(totals.photos_of_runs[run_and_rate], rate_millionths)
        totals.photos_of_runs[run_and_rate] += usage.photos
        credits = whole_credits(totals.photos_of_runs[run_and_rate], rate_millionths) - before
        if credits and not totals.credits_of_runs[usage.run_id]:
            totals.charged_runs += 1
        totals.credits_of_runs[usage.run_id] += credits
        totals.expected_credits += credits
        totals.photos += usage.photos
