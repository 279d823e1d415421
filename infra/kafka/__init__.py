"""Connections to Kafka, tolerant reading of records, dead letters."""
