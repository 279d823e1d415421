"""Outgoing webhooks: organisations' endpoints, the queue of deliveries, and the sender.

Webhooks of payment gateways are incoming: `api.payments.payments` receives them, and
`infra.payments.gateways` checks their signatures.
"""
