"""Outgoing webhooks: the rules of organisations' endpoints, and the allowed URLs.

Webhooks of payment gateways are incoming: `domain.payments.tracking` handles them.
"""
