"""Payment gateways, each behind the port of `domain/gateway.py`."""
