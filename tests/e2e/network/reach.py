"""What can be connected to from inside of a pod, found out by trying."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from tests.e2e.box import Box, shown
from tests.e2e.kubectl import Kubectl

Ask = Callable[[str], Awaitable[str]]
"""Runs a command line of bash where the looking is done, and gives what it prints."""

PATIENCE_S = 3
"""How long an answer is waited for. One on the same machine takes a millisecond; Linux sends the
first packet of a connection again after one second."""
ASK_DNS = (
    r"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    r"\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01"
)
"""A question for an address (RFC 1035, 4.1), as printf writes it."""

# $1 name, $2 protocol, $3 address, $4 port, $5 what to send by UDP. The program `timeout` ends with
# 124; what a connection was refused with stays unsaid.
_LOOK = f"""
look() {{
  if [ "$2" = TCP ]; then timeout {PATIENCE_S} bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$3" "$4"
  else timeout {PATIENCE_S} bash -c 'exec 3<>"/dev/udp/$0/$1" && printf "$2" >&3 &&
    [ -n "$(head -c 1 <&3 | tr "\\0" x)" ]' "$3" "$4" "$5"; fi 2>/dev/null
  case $? in 0) echo "$1 open" ;; 124) echo "$1 silent" ;; *) echo "$1 refused" ;; esac
}}
"""


class Reach(Enum):
    """What came of trying."""

    OPEN = "open"
    """The connection came about; by UDP, there was an answer."""
    REFUSED = "refused"
    """Something said no: a policy that rejects, or a machine on which nothing listens."""
    SILENT = "silent"
    """Nothing came back."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that listens. `say` is what it answers to by UDP."""

    name: str
    address: str
    port: int
    protocol: str = "TCP"
    say: str = "x"


def from_box(box: Box) -> Ask:
    """Looking with the sandbox's own shell, as the model would."""

    async def ask(command: str) -> str:
        receipt = await box.bash(command)
        assert receipt.content, shown(receipt)
        return receipt.content

    return ask


def from_pod(kubectl: Kubectl, pod: str) -> Ask:
    """Looking from another pod, without its network."""

    async def ask(command: str) -> str:
        return await kubectl.run("exec", pod, "--", "bash", "-c", command)

    return ask


async def look(ask: Ask, targets: Iterable[Target]) -> dict[str, Reach]:
    """Try all targets at once; what came of it by name."""
    wanted = tuple(targets)
    lines = [
        shlex.join(["look", t.name, t.protocol, t.address, str(t.port), t.say]) + " &"
        for t in wanted
    ]
    printed = await ask("\n".join([_LOOK, *lines, "wait"]))
    rows = [line.rsplit(" ", 1) for line in printed.splitlines() if line]
    found = {row[0]: Reach(row[1]) for row in rows}
    assert set(found) == {target.name for target in wanted}, printed
    return found


async def opened(ask: Ask, targets: Iterable[Target]) -> set[str]:
    """Names of those that can be reached."""
    found = await look(ask, targets)
    return {name for name, reach in found.items() if reach is Reach.OPEN}
