"""Webhooks of organisations: endpoints, the queue of deliveries, and the sender."""
