"""Issuer and audiences of tokens from the embedded issuer, which signs them. The API verifies them."""

from __future__ import annotations

from typing import Final

ISSUER: Final = "urn:creditledger:embedded"
AUDIENCE: Final = "creditledger"
TICKET_AUDIENCE: Final = "creditledger-sign-in"
"""Sign-in links end up in browser histories and logs.

So a ticket opens one session and is not valid for the API.
"""
