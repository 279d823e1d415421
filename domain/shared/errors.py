"""The root of all errors of the ledger, and the errors that all contexts share."""

from __future__ import annotations

from eventsourcing.persistence import IntegrityError, OperationalError


class LedgerError(Exception):
    """The ledger refused the request."""

    def __init__(self, message: str | None = None, **details: object) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])
        self.details = details


class InvalidInput(LedgerError):
    """A value is not valid. `field` names it; `field_errors` has all invalid fields with their reasons."""

    def __init__(self, field: str, message: str, *more: tuple[str, str]) -> None:
        self.field = field
        self.field_errors = ((field, message), *more)
        text = "; ".join(f"{name}: {why}" for name, why in self.field_errors) if more else message
        super().__init__(text, field=field)


class ValidationErrors:
    """Collects validation errors of several fields, so that they can be reported together."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def add(self, field: str, message: str) -> None:
        """Add an error of a field. Only its first error is kept: later ones may follow from it."""
        self._found.setdefault(field, message)

    def check(self) -> None:
        """Check that there are no errors.

        Raises:
            InvalidInput: there are errors; it has all of them, in the order they were added.
        """
        if self._found:
            first, *more = self._found.items()
            raise InvalidInput(*first, *more)


class IdempotencyConflict(LedgerError):
    """The idempotency key was used before with a different request."""


class PriceVersionNotFound(LedgerError):
    """The price book has no edition of this version."""


class InvariantViolation(LedgerError):
    """The ledger's data is inconsistent: a programming error, never caused by input."""


class StoreError(LedgerError):
    """The event store could not execute the operation.

    If the eventsourcing library has its own error for a case, the subclass also inherits from that error.
    """


class VersionConflict(StoreError, IntegrityError):
    """Another writer appended to the organisation first."""


class DuplicateKey(StoreError, IntegrityError):
    """A dedupe key is already in the ledger."""


class CheckpointConflict(StoreError):
    """The stored position is not the expected one: another consumer owns the partition."""


class StoreUnavailable(StoreError, OperationalError):
    """The database cannot be reached at the moment."""


class UnknownEventType(StoreError):
    """A stored event has a topic this version of the ledger does not know."""


class DeadLettersUnavailable(LedgerError):
    """The dead-letter topic did not accept a record in time."""
