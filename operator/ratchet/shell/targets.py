"""What sandboxes try to reach although their network policies deny it. Pure.

It must be known to listen, or that it cannot be reached tells nothing: the API server, and the
probes of the operator's own pod.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping


def known_to_listen(environ: Mapping[str, str], pod_ip: str, probe_port: int) -> tuple[str, ...]:
    """The targets that Kubernetes tells a pod of, as `address:port`.

    None of the API server where it is named and not numbered: sandboxes look up no names for this.
    """
    host, port = (environ.get(f"KUBERNETES_SERVICE_{word}", "") for word in ("HOST", "PORT"))
    told = ((host, port), (pod_ip, str(probe_port) if probe_port else ""))
    targets = (_joined(address, port) for address, port in told if address and port)
    return tuple(target for target in targets if is_target(target))


def is_target(text: str) -> bool:
    """Whether it is `address:port`, with an address of IPv6 in brackets."""
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        return _joined(str(address), str(int(port))) == text and 0 < int(port) < 65_536
    except ValueError:
        return False


def _joined(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
