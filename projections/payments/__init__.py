"""Payments and their flags: projections and their queries."""
