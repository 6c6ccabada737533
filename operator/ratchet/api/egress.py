"""Where a sandbox may connect to: the egress rules of a SandboxClass."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from ratchet.api.base import Model, Rule, chars, listed

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_HOST = rf"^(\*\.)?{_LABEL}(\.{_LABEL})+$"

Cidr = Annotated[str, chars(43, least=1, pattern=r"^[0-9a-fA-F:.]+/[0-9]{1,3}$")]
"""A network such as 10.1.0.0/16 or fd00::/8; 43 is the longest that IPv6 allows."""
Label = Annotated[str, chars(63, least=1, pattern=rf"^{_LABEL}$")]


class Protocol(StrEnum):
    """Transport protocol of a port."""

    TCP = "TCP"
    UDP = "UDP"


class EgressPort(Model):
    """A port that may be connected to."""

    port: Annotated[int, Field(ge=1, le=65_535)]
    """The port's number, 1 to 65,535. Required."""
    protocol: Protocol | None = None
    """TCP or UDP. Default: TCP."""


class EgressService(Model):
    """A Service of the cluster, by its name."""

    name: Label
    """Name of the Service. It needs a selector: the pods that it selects are what is opened.
    Required."""
    namespace: Label | None = None
    """Namespace of the Service. Default: the task's own."""


class EgressRule(Model):
    """One destination, with its ports."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="[has(self.cidr), has(self.service), has(self.host)].filter(given, given).size() == 1",
            message="an egress rule has exactly one of cidr, service and host: give one of the three",
        ),
        Rule(
            rule="!has(self.cidr) || isCIDR(self.cidr)",
            message="cidr is not a network: write it like 10.1.0.0/16 or fd00::/8",
            field=".cidr",
        ),
        Rule(
            rule="!has(self.except) || has(self.cidr)",
            message="except belongs to cidr: take it out of rules with service or host",
            field=".except",
        ),
        Rule(
            rule=(
                "!has(self.except) || !has(self.cidr) || !isCIDR(self.cidr)"
                " || self.except.all(e, isCIDR(e) && cidr(self.cidr).containsCIDR(e)"
                " && cidr(e).prefixLength() > cidr(self.cidr).prefixLength())"
            ),
            message="each network of except lies inside of cidr, and is smaller: change one of them",
            field=".except",
        ),
        Rule(
            rule="!has(self.host) || !isIP(self.host)",
            message="host is a name, not an address: write addresses as cidr, such as 10.1.2.3/32",
            field=".host",
        ),
    )

    cidr: Cidr | None = None
    """Network that may be connected to, such as 10.1.0.0/16. Exactly one of cidr, service and host
    is given."""
    except_: Annotated[
        Annotated[tuple[Cidr, ...], listed("set", most=32)] | None, Field(alias="except")
    ] = None
    """Networks inside of cidr that stay closed, at most 32. Default: none."""
    service: EgressService | None = None
    """A Service whose pods may be connected to; it opens DNS, too. Exactly one of cidr, service
    and host is given."""
    host: Annotated[str, chars(253, least=1, pattern=_HOST)] | None = None
    """Host name in lower case, such as example.com, or *.example.com for all names below it; it
    opens DNS, too. Only for clusters whose network is Cilium: elsewhere the task says so and does
    not start. Exactly one of cidr, service and host is given."""
    ports: Annotated[tuple[EgressPort, ...], listed("atomic", least=1, most=16)]
    """Ports of the destination that may be connected to, 1 to 16. With service these are the ports
    of its pods. Required."""
