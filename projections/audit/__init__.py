"""Checks of a live system: rows against a fresh replay, invariants, seals."""
