"""Every error a caller of the ledger can meet, under one root."""

from __future__ import annotations

from eventsourcing.persistence import IntegrityError, OperationalError


class LedgerError(Exception):
    """The ledger refused the request."""

    def __init__(self, message: str | None = None, **details: object) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])
        self.details = details


class InvalidInput(LedgerError):
    """A value is outside what the ledger accepts; `field` names it, and `field_errors` all that are, with why."""

    def __init__(self, field: str, message: str, *more: tuple[str, str]) -> None:
        self.field = field
        self.field_errors = ((field, message), *more)
        text = "; ".join(f"{name}: {why}" for name, why in self.field_errors) if more else message
        super().__init__(text, field=field)


class ValidationErrors:
    """What is wrong with several values, gathered so that all of it is told at once."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def add(self, field: str, message: str) -> None:
        """Remember what is wrong with a field. Its first fault stays: the others may follow from it."""
        self._found.setdefault(field, message)

    def check(self) -> None:
        """Check that nothing was found.

        Raises:
            InvalidInput: with all faults, in the order they were found.
        """
        if self._found:
            first, *more = self._found.items()
            raise InvalidInput(*first, *more)


class IdempotencyConflict(LedgerError):
    """The idempotency key was used before with a different request."""


class PriceVersionNotFound(LedgerError):
    """The price book has no edition of this version."""


class InvariantViolation(LedgerError):
    """The books do not add up: a programmer's error, never an input's."""


class StoreError(LedgerError):
    """The event store could not do what was asked.

    Where the eventsourcing library has its own error for a case, the subclass inherits from that error too.
    """


class VersionConflict(StoreError, IntegrityError):
    """Another writer appended to the organisation first."""


class DuplicateKey(StoreError, IntegrityError):
    """A deduplication key is already in the ledger."""


class CheckpointConflict(StoreError):
    """The stored position is not the expected one: another consumer owns the partition."""


class StoreUnavailable(StoreError, OperationalError):
    """The database cannot be reached at the moment."""


class UnknownEventType(StoreError):
    """A stored event has a topic this version of the ledger does not know."""


class DeadLettersUnavailable(LedgerError):
    """The dead-letter topic did not take a record in time."""
