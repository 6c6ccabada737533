"""A namespace with an operator process."""

from tests.e2e.tasks.conftest import effects, operator, scene

__all__ = ["effects", "operator", "scene"]
