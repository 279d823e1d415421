"""The JSON API, `/v1`: commands on the ledger, and reads of the projections, over HTTP."""
