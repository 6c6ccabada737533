"""The command `ratchet`: what can be said of tasks without a cluster."""
