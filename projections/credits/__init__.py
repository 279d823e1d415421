"""Balance, holds, statement and usage of organisations: projections and their queries."""
