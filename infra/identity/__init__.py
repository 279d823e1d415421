"""Tokens, signing keys, API keys, sessions and names of people, in PostgreSQL and over HTTP."""
