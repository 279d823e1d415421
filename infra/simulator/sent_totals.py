"""An account of what was published, kept by the sender: what any ledger must arrive at.

It shares nothing with the ledger. Only acknowledged messages count. Memory grows by about 300 bytes a
message, for an exact account has to know every identity it has counted.
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
    """What one organisation's messages come to.

    `messages` count repeats but not the conflicting; `photos` and `expected_credits` count each identity
    once. `charged_runs` are runs that cost at least one credit.
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
    """Counts acknowledged messages; safe to read while they arrive."""

    def __init__(self, rates: Rates | None = None) -> None:
        self._rates = rates if rates is not None else Rates()
        self._lock = Lock()
        self._accounts: dict[str, OrganisationTotals] = {}
        self._bodies: dict[tuple[str, str], int] = {}
        self._malformed: Counter[str] = Counter()
        self._last_offsets: dict[int, int] = {}
        self._unconfirmed: list[dict[str, str]] = []

    def acknowledge(self, record: Outgoing, partition: int, offset: int) -> None:
        """Count a record that the broker has; call it in the order of the log."""
        with self._lock:
            self._last_offsets[partition] = offset
            if record.malformed_kind is not None:
                self._malformed[record.malformed_kind] += 1
            else:
                self._count(record.usage)

    def set_unconfirmed(self, records: Iterable[Outgoing]) -> None:
        """Name the records that nobody acknowledged: the broker may have them or not."""
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
        """How many records nobody acknowledged."""
        return len(self._unconfirmed)

    @property
    def acknowledged(self) -> int:
        """How many records the broker acknowledged, good and bad."""
        with self._lock:
            return self._acknowledged()

    def as_dict(self) -> dict[str, Any]:
        """Return the account as JSON takes it."""
        with self._lock:
            return {
                "acknowledged": self._acknowledged(),
                "organisations": {
                    organisation_id: {
                        "messages": account.messages,
                        "unique_messages": account.unique_messages,
                        "conflicting": account.conflicting,
                        "photos": account.photos,
                        "expected_credits": account.expected_credits,
                        "charged_runs": account.charged_runs,
                    }
                    for organisation_id, account in sorted(self._accounts.items())
                },
                "malformed": dict(sorted(self._malformed.items())),
                "conflicting": sum(account.conflicting for account in self._accounts.values()),
                "last_offsets": {str(number): last for number, last in sorted(self._last_offsets.items())},
                "unconfirmed": list(self._unconfirmed),
            }

    def _acknowledged(self) -> int:
        counted = sum(account.messages + account.conflicting for account in self._accounts.values())
        return counted + self._malformed.total()

    def _count(self, usage: Usage) -> None:
        account = self._accounts.setdefault(usage.organisation_id, OrganisationTotals())
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
            account.messages += 1
            account.unique_messages += 1
            self._charge(account, usage)
        elif first_body == body:
            account.messages += 1
        else:
            account.conflicting += 1

    def _charge(self, account: OrganisationTotals, usage: Usage) -> None:
        """Add the photos to their run: a run costs whole credits once, however many messages it takes."""
        rate_millionths = self._rates.rate_millionths(usage.usage_type, ai_search=usage.ai_search)
        at_one_rate = (usage.run_id, usage.usage_type, rate_millionths)
        before = whole_credits(account.photos_of_runs[at_one_rate], rate_millionths)
        account.photos_of_runs[at_one_rate] += usage.photos
        credits = whole_credits(account.photos_of_runs[at_one_rate], rate_millionths) - before
        if credits and not account.credits_of_runs[usage.run_id]:
            account.charged_runs += 1
        account.credits_of_runs[usage.run_id] += credits
        account.expected_credits += credits
        account.photos += usage.photos
