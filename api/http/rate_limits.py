"""Rate limits: every caller has a token bucket, which refills evenly.

Buckets are in memory, so every process of the API counts separately: with N processes a caller gets up to N
times the quota. The limits protect callers from each other; billing does not use them.
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
"""The maximum number of buckets of a quota. The least recently used bucket is dropped first."""


@dataclass(frozen=True)
class QuotaStatus:
    """The remaining quota after a request."""

    policy: str
    quota: int
    """Requests per `WINDOW_S`. They may come in one burst."""
    remaining: int
    reset_in_s: int
    """Seconds until the full quota is available again."""
    retry_in_s: int
    """Seconds until the next request is allowed; 0 if this request was within the quota."""

    @property
    def is_exceeded(self) -> bool:
        """Whether the request exceeded the quota."""
        return self.retry_in_s > 0


class Quota:
    """A quota per caller. Only one thread at a time may use it."""

    def __init__(
        self, policy: str, per_minute: int, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._policy = policy
        self._quota = per_minute
        self._per_second = per_minute / WINDOW_S
        self._monotonic_s = monotonic_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> QuotaStatus:
        """Take one request from a caller's quota, if any is left."""
        now_s = self._monotonic_s()
        tokens, filled_at_s = self._buckets.pop(caller, (float(self._quota), now_s))
        tokens = min(self._quota, tokens + (now_s - filled_at_s) * self._per_second)
        is_allowed = tokens >= 1
        tokens -= is_allowed
        self._buckets[caller] = (tokens, now_s)
        if len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)
        return QuotaStatus(
            self._policy,
            self._quota,
            int(tokens),
            ceil((self._quota - tokens) / self._per_second),
            0 if is_allowed else max(1, ceil((1 - tokens) / self._per_second)),
        )


@dataclass(frozen=True)
class RateLimits:
    """The quotas of the API: per principal, and per requested organisation."""

    principals: Quota
    organisations: Quota


def headers_of(allowances: Sequence[QuotaStatus]) -> dict[str, str]:
    """Return the RateLimit headers of the IETF draft."""
    policies = [f'"{each.policy}";q={each.quota};w={WINDOW_S}' for each in allowances]
    remaining = [f'"{each.policy}";r={each.remaining};t={each.reset_in_s}' for each in allowances]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(remaining)} if allowances else {}


def rate_limits(per_principal: int, per_organisation: int) -> RateLimits:
    """Return the limits, in requests per minute."""
    return RateLimits(Quota("principal", per_principal), Quota("organisation", per_organisation))
