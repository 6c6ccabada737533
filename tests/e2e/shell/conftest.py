"""Sandboxes of either runtime, as the tests of the runtimes have them."""

from tests.e2e.runtimes.conftest import boxes, runtime

__all__ = ["boxes", "runtime"]
