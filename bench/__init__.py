"""Measurements: what the project costs, as numbers that can be compared."""
