"""Payment records in PostgreSQL, workers that follow up payments, reconciliation."""
