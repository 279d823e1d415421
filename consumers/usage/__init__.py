"""Charges usage messages from Kafka."""
