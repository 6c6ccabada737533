"""The command `ratchet`: what can be said of tasks, from what kubectl printed or from a cluster."""
