"""The runner: PID 1 of the user's container. It runs the tools and keeps no secret."""
