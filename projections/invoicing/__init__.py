"""Queries over invoices and credit notes, which commit with their events."""
