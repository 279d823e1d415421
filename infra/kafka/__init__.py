"""Kafka: connections, tolerant reading of records, and dead letters."""
