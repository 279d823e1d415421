"""Errors about people."""

from __future__ import annotations

from domain.shared.errors import LedgerError


class PersonNotFound(LedgerError):
    """No person with this id is known."""


class PersonErased(LedgerError):
    """The person was erased and cannot be stored again."""
