"""Recomputes lots: free credits first, then paid ones, oldest first; the rest is overdraft."""

from __future__ import annotations

from dataclasses import dataclass, field

FREE, PAID = 0, 1


@dataclass
class Lots:
    """The lots of an organisation. A lot is [kind, number, size, remaining]."""

    held: list[list[int]] = field(default_factory=list)
    overdraft: int = 0

    def add(self, number: int, kind: int, credits_count: int) -> int:
        """Add an addition, and return how much of it paid the overdraft."""
        overdraft_covered = min(credits_count, self.overdraft)
        self.overdraft -= overdraft_covered
        if left := credits_count - overdraft_covered:
            self.held.append([kind, number, left, left])
            self.held.sort()
        return overdraft_covered

    def charge(self, credits_count: int) -> tuple[list[list[int]], int]:
        """Spend credits, and return the draws and the overdraft."""
        draws = []
        while credits_count and self.held:
            lot = self.held[0]
            drawn = min(lot[3], credits_count)
            draws.append([lot[1], drawn])
            lot[3] -= drawn
            credits_count -= drawn
            if lot[3] == 0:
                self.held.pop(0)
        self.overdraft += credits_count
        return draws, credits_count
