"""Outgoing webhooks: HTTP operations on organisations' endpoints.

Webhooks of payment gateways are incoming: `api.payments.payments` receives them.
"""
