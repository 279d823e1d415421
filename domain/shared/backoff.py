"""How long to wait between attempts that fail: twice as long each time, up to a limit."""

from __future__ import annotations


class Backoff:
    """The wait before the next attempt, in seconds. Used by one thread."""

    __slots__ = ("_first_s", "_max_s", "next_s")

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self.next_s = first_s

    def advance(self) -> float:
        """Return the wait that is due now, and double the next one."""
        due_s = self.next_s
        self.next_s = min(2 * due_s, self._max_s)
        return due_s

    def reset(self) -> None:
        """Start from the first wait again: an attempt succeeded."""
        self.next_s = self._first_s
