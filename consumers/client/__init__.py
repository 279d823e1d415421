"""What a photo-processing pipeline needs of the ledger: report usage, hold credits, know when to pause.

It knows the wire contracts only, and nothing of how the ledger keeps its books.
"""

from consumers.client.balances import Balances
from consumers.client.holds import HoldRefused, Holds, LedgerUnreachable, PlacedHold
from consumers.client.usage import UsageReporter

__all__ = ["Balances", "HoldRefused", "Holds", "LedgerUnreachable", "PlacedHold", "UsageReporter"]
