"""Committed and fresh results in numbers: the store of tables and weights, averages over seeds, claims and outcomes."""
