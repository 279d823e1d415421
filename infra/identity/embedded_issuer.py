"""What the tokens of the embedded issuer say: it signs them, and the API verifies them."""

from __future__ import annotations

from typing import Final

ISSUER: Final = "urn:creditledger:embedded"
AUDIENCE: Final = "creditledger"
TICKET_AUDIENCE: Final = "creditledger-sign-in"
"""Sign-in links end up in browser histories and logs, so their ticket opens one session and no API."""
