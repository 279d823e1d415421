"""Webhooks of organisations: their endpoints, what is due to them, and how it is sent."""
