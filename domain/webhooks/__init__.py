"""Webhook endpoints of organisations: their rules, and the URLs that are allowed."""
