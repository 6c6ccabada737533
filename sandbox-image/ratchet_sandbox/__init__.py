"""The sandbox of a Ratchet task: an HTTPS server with a ledger, and the runner it commands."""
