"""Which cluster is used: the one that was named, else kind, else one of our own."""

from collections.abc import Mapping
from enum import Enum

from tests.cluster import folders, networks
from tests.cluster.errors import ClusterError


class Provider(Enum):
    """Where the cluster comes from."""

    GIVEN = "given"
    """Named by RATCHET_CONTEXT; it must be able to pull from REGISTRY."""
    KIND = "kind"
    """Made by kind in Docker."""
    LOCAL = "local"
    """Made from Go modules on this machine."""


def choose(environment: Mapping[str, str], docker_answers: bool) -> Provider:
    """The provider for this environment.

    A current context is never taken unasked; what RATCHET_CLUSTER names is always a local cluster,
    whose parts can be stopped one by one, and so is one whose network RATCHET_NETWORK names. Raises
    `ClusterError` if RATCHET_CONTEXT is set and REGISTRY is not, or a network is asked of it.
    """
    network = networks.asked(environment)
    if environment.get(folders.NAME):
        return Provider.LOCAL
    if context := environment.get("RATCHET_CONTEXT"):
        if network is not None:
            raise ClusterError(
                f"{networks.VARIABLE} is for a local cluster, and RATCHET_CONTEXT={context} names one "
                "that has its network: unset one of them"
            )
        if not environment.get("REGISTRY"):
            raise ClusterError(
                f"RATCHET_CONTEXT={context} also needs REGISTRY, a registry that you can push to "
                "and that this cluster can pull from: set REGISTRY=registry.example.com/name"
            )
        return Provider.GIVEN
    return Provider.KIND if docker_answers and network is None else Provider.LOCAL
