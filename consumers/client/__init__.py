"""The client for a photo-processing pipeline: report usage, hold credits, and follow balances.

It depends only on the wire contracts, not on the internals of the ledger.
"""

from consumers.client.balances import Balances
from consumers.client.holds import HoldRefused, Holds, LedgerUnreachable, PlacedHold
from consumers.client.usage import UsageReporter

__all__ = ["Balances", "HoldRefused", "Holds", "LedgerUnreachable", "PlacedHold", "UsageReporter"]
