"""Ratchet runs AI agent tasks as Kubernetes custom resources."""

__version__ = "0.1.0"
