"""Documents in PostgreSQL and as PDF, the seller, and the worker that issues what is due."""
