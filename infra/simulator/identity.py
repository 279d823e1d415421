"""Ids of messages and runs. No two processes create the same id."""

from __future__ import annotations

from datetime import datetime
from random import Random

from consumers.client.usage import uuid7


class IdGenerator:
    """Creates ids from a seed and the name of this process.

    Because of the name, two processes with the same seed create different ids. The same id with another body
    would be a conflict.
    """

    def __init__(self, seed: int, process: str) -> None:
        self._process = process
        self._randomness = Random(f"ids/{seed}/{process}")  # noqa: S311 - ids need no secrecy
        self._runs = 0

    def message_id(self, at: datetime) -> str:
        """Return a new message id for usage at a time."""
        return str(uuid7(int(at.timestamp() * 1_000), self._randomness.getrandbits))

    def run_id(self) -> str:
        """Return the id of a new run."""
        self._runs += 1
        return f"run-{self._process}-{self._runs}"
