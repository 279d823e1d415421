"""Publishes ledger events to Kafka topics, and formats webhook messages."""
