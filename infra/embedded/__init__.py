"""Embedded servers for local use and tests: PostgreSQL, Kafka, a token issuer and a sandbox payment gateway.

They run on Linux and macOS and listen on loopback only.
"""
