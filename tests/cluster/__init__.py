"""A real Kubernetes cluster for the tests and the demo, made without an image registry.

`python3 -m tests.cluster up` starts one (or takes the one that `RATCHET_CONTEXT` names) and
leaves its description in `build/cluster/env.json`; `current()` reads it. Standard library only,
so that it runs with the plain `python3` of a fresh machine.
"""

from tests.cluster.description import Cluster, current
from tests.cluster.errors import ClusterError

__all__ = ["Cluster", "ClusterError", "current"]
