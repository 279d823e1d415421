"""A simulated photo-processing pipeline: realistic usage messages, and the totals of what was sent.

The simulator replaces the program that publishes usage to Kafka. It does not use the ledger's rules for
charges, so its totals are an independent check of what the ledger charged.
"""
