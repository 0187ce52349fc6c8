"""Bring what is to what should be; it would reconcile anything."""
