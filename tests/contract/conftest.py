"""The cluster's fixtures, for the contracts that hold of real things too."""

from tests.e2e.conftest import api, cluster, namespace

__all__ = ["api", "cluster", "namespace"]
