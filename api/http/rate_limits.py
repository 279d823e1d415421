"""How many requests somebody may send: a bucket of tokens each, filled up evenly.

Buckets are kept in memory, so every process of the API counts for itself: behind N of them a caller gets up
to N times as much. They keep one caller from taking the API from the others; they are no billing.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

WINDOW_S: Final = 60
BUCKETS_MAX: Final = 10_000
"""Kept at most, of each kind; the one that was not used for longest goes first."""


@dataclass(frozen=True)
class Allowance:
    """What is left of a quota after a request."""

    policy: str
    quota: int
    """Requests in `WINDOW_S`, also at once."""
    remaining: int
    reset_in_s: int
    """Seconds until all of it is there again."""
    retry_in_s: int
    """Seconds until another request may come; 0 if this one was within the quota."""

    @property
    def is_exceeded(self) -> bool:
        """Whether the request was one too many."""
        return self.retry_in_s > 0


class Quota:
    """A quota that everybody has of their own. Used by one thread at a time."""

    def __init__(
        self, policy: str, per_minute: int, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._policy = policy
        self._quota = per_minute
        self._per_second = per_minute / WINDOW_S
        self._monotonic_s = monotonic_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> Allowance:
        """Take one request from somebody's quota, if there is one left."""
        now_s = self._monotonic_s()
        held, filled_at_s = self._buckets.pop(caller, (float(self._quota), now_s))
        held = min(self._quota, held + (now_s - filled_at_s) * self._per_second)
        granted = held >= 1
        held -= granted
        self._buckets[caller] = (held, now_s)
        if len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)
        return Allowance(
            self._policy,
            self._quota,
            int(held),
            ceil((self._quota - held) / self._per_second),
            0 if granted else max(1, ceil((1 - held) / self._per_second)),
        )


@dataclass(frozen=True)
class RateLimits:
    """The quotas of the API: of everybody who asks, and of every organisation that is asked about."""

    principals: Quota
    organisations: Quota


def headers_of(allowances: Sequence[Allowance]) -> dict[str, str]:
    """Return the RateLimit headers, as the IETF's draft has them."""
    policies = [f'"{each.policy}";q={each.quota};w={WINDOW_S}' for each in allowances]
    standings = [f'"{each.policy}";r={each.remaining};t={each.reset_in_s}' for each in allowances]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(standings)} if allowances else {}


def rate_limits(per_principal: int, per_organisation: int) -> RateLimits:
    """Return limits in requests a minute."""
    return RateLimits(Quota("principal", per_principal), Quota("organisation", per_organisation))
