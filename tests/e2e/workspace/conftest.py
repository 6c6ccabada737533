"""A namespace with an operator process that looks after it alone, and what clones are put on."""

from __future__ import annotations

from tests.e2e.loss.conftest import volume_claim
from tests.e2e.runtimes.conftest import runtime
from tests.e2e.tasks.conftest import operator, scene

__all__ = ["operator", "runtime", "scene", "volume_claim"]
