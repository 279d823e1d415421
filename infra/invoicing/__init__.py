"""Invoicing: documents in PostgreSQL and as PDF, the seller, and the worker that issues due documents."""
