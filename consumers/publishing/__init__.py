"""Events from the ledger to Kafka topics and to the webhook outbox."""
