"""HTTP operations on billing details and invoices."""
