"""Tokens, signing keys, API keys, sessions and names of people."""
