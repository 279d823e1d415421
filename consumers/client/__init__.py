"""The client for a photo-processing pipeline: report usage, hold credits, and follow balances.

It imports the types of usage messages and holds from `domain`, and needs no database.
"""

from consumers.client.balances import Balances
from consumers.client.holds import HoldRefused, Holds, LedgerUnreachable, PlacedHold
from consumers.client.usage import UsageReporter
from domain.credits.usage import PhotoEvent

__all__ = [
    "Balances",
    "HoldRefused",
    "Holds",
    "LedgerUnreachable",
    "PhotoEvent",
    "PlacedHold",
    "UsageReporter",
]
