"""Exponential back-off: each failed attempt doubles the wait before the next one, up to a limit."""

from __future__ import annotations


class Backoff:
    """The wait before the next attempt, in seconds. Not thread-safe."""

    __slots__ = ("_first_s", "_max_s", "next_s")

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self.next_s = first_s

    def advance(self) -> float:
        """Return the current wait, and double the next one."""
        due_s = self.next_s
        self.next_s = min(2 * due_s, self._max_s)
        return due_s

    def reset(self) -> None:
        """Reset to the first wait, after a successful attempt."""
        self.next_s = self._first_s
