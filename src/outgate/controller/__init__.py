"""One writer of what users read in policies: the controller beside the agents."""
