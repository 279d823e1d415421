"""Invoices and credit notes: billing details, tax, gapless series, documents."""
