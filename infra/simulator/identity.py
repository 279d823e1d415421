"""Ids of messages and runs: minted once, and never again by any other process."""

from __future__ import annotations

from datetime import datetime
from random import Random

from consumers.client.usage import uuid7


class IdGenerator:
    """Makes ids from a seed and the name of this process.

    The name keeps two processes of one seed apart: the same id with another body would be a conflict.
    """

    def __init__(self, seed: int, process: str) -> None:
        self._process = process
        self._randomness = Random(f"ids/{seed}/{process}")  # noqa: S311 - ids need no secrecy
        self._runs = 0

    def message_id(self, at: datetime) -> str:
        """Return the id of a message about something that happened at a time."""
        return str(uuid7(int(at.timestamp() * 1_000), self._randomness.getrandbits))

    def run_id(self) -> str:
        """Return the id of a new run."""
        self._runs += 1
        return f"run-{self._process}-{self._runs}"
