"""Usage messages from Kafka into the ledger."""
