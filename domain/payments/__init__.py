"""Payments through gateways: quotes, checkout, tracking, completion, refunds, reconciliation."""
