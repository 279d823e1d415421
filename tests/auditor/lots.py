"""Lots recounted: free credits first, then paid, oldest first; what none covers is overdraft."""

from __future__ import annotations

from dataclasses import dataclass, field

FREE, PAID = 0, 1


@dataclass
class Lots:
    """What is left of an organisation's additions. A lot is [kind, number, size, remaining]."""

    held: list[list[int]] = field(default_factory=list)
    overdraft: int = 0

    def add(self, number: int, kind: int, credits_count: int) -> int:
        """Take in an addition, and return how much of it paid the overdraft."""
        overdraft_covered = min(credits_count, self.overdraft)
        self.overdraft -= overdraft_covered
        if left := credits_count - overdraft_covered:
            self.held.append([kind, number, left, left])
            self.held.sort()
        return overdraft_covered

    def charge(self, credits_count: int) -> tuple[list[list[int]], int]:
        """Spend credits, and return what was drawn from which lot, and the overdraft."""
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
