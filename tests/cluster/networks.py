"""The network of a local cluster: plain, or with an enforcer of NetworkPolicies."""

from collections.abc import Mapping
from enum import Enum

from tests.cluster.errors import ClusterError

VARIABLE = "RATCHET_NETWORK"
"""Variable that names the network that `up` is to bring."""


class Network(Enum):
    """What joins the pods of a local cluster."""

    PLAIN = "plain"
    """A pair of interfaces per pod. NetworkPolicies are kept and change nothing."""
    CILIUM = "cilium"
    """The same pairs, on which Cilium enforces NetworkPolicies."""


def asked(environment: Mapping[str, str]) -> Network | None:
    """The network that the environment names; None where it names none.

    Raises `ClusterError` for another name.
    """
    name = environment.get(VARIABLE, "")
    if not name:
        return None
    if name not in [network.value for network in Network]:
        known = " or ".join(network.value for network in Network)
        raise ClusterError(f"{VARIABLE}={name}: there is no such network; use {known}")
    return Network(name)
