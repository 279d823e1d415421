"""HTTP operations on webhook endpoints."""
