"""What an operator sees: names of events and metrics, logs, health; no decisions."""
