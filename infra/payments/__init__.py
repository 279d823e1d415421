"""Payments: records in PostgreSQL, workers that follow up payments, and reconciliation."""
