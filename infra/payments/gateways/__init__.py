"""Payment gateways, each behind the port of `domain/payments/gateway.py`."""
