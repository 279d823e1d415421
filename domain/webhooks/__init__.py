"""Webhook endpoints of organisations: their rules, and the allowed URLs."""
