"""HTTP operations on API keys and the names of people."""
