"""A namespace with an operator process that looks after it alone."""

from __future__ import annotations

from tests.e2e.tasks.conftest import operator, scene

__all__ = ["operator", "scene"]
