"""Pages about money: billing, the purchase wizard, refunds, flags, reconciliation, auto top-up."""
