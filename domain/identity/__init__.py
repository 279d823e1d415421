"""Callers of the API: principals, their roles, and the names of people."""
