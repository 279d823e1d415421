"""Refusals about people."""

from __future__ import annotations

from domain.shared.errors import LedgerError


class PersonNotFound(LedgerError):
    """Nobody has told of a person with this id."""


class PersonErased(LedgerError):
    """The person was erased, and stays so."""
