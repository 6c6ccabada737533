"""The sandbox of a task that goes on, asked with the rights of the user.

kubectl forwards a port to the pod; the token and the certificate that is trusted come from the
sandbox's Secret. So it takes the right to read that Secret and to forward ports: rights that let
one do in the sandbox what the operator may.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from ratchet.cli.cluster import Cluster, get
from ratchet.cli.failures import Failed
from ratchet.cli.work import Work
from ratchet.edges.certificates import server_name
from ratchet.edges.kube import core
from ratchet.edges.pods import identity_in
from ratchet.edges.sandbox import PORT, SandboxClient, new_session
from ratchet.ports import SandboxAway, SandboxRefused

FORWARD_S: Final = 20.0
"""How long kubectl may take until it forwards."""
_FORWARDING: Final = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) ->")


@asynccontextmanager
async def sandbox_of(cluster: Cluster, work: Work) -> AsyncIterator[SandboxClient]:
    """The server of the task's sandbox as it is now. Raises Failed, also for its refusals."""
    sandbox = work.status.get("sandbox") or {}
    pod = str(sandbox.get("pod") or "")
    if not pod:
        phase = work.status.get("phase", "Pending")
        raise Failed(
            f"Task {work.task} is {phase} and has no sandbox yet: there is nothing to get."
        )
    secret = await get(
        cluster, core("secrets", work.task.namespace, pod),
        f"Secret {pod}, whose token a running sandbox asks for (wait for the end of the task, or ask "
        "somebody who may)",
    )  # fmt: skip
    identity = identity_in(secret)
    if identity is None:
        raise Failed(f"Secret {pod} of the sandbox is gone or damaged: is the pod being replaced?")
    async with forwarded(cluster, pod) as port, new_session() as session:
        client = SandboxClient(
            session, pod=pod, address="127.0.0.1", port=port, identity=identity, epoch=0,
            server_name=server_name(work.task.uid, int(sandbox.get("generation") or 1)),
        )  # fmt: skip
        try:
            yield client
        except (SandboxAway, SandboxRefused) as error:
            raise Failed(f"The sandbox of task {work.task} does not give it: {error}.") from error


@asynccontextmanager
async def forwarded(cluster: Cluster, pod: str) -> AsyncIterator[int]:
    """A port of this machine that leads to the pod's server. Raises Failed."""
    program = shutil.which("kubectl")
    if program is None:
        raise Failed("A running sandbox is reached through kubectl, and there is none on the PATH.")
    words = [*cluster.where.words, f"--namespace={cluster.namespace}", "port-forward"]
    kubectl = await asyncio.create_subprocess_exec(
        program, *words, f"pod/{pod}", f":{PORT}", "--address=127.0.0.1",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield await _port(kubectl, pod)
    finally:
        if kubectl.returncode is None:
            kubectl.terminate()
        await kubectl.wait()


async def _port(kubectl: asyncio.subprocess.Process, pod: str) -> int:
    assert kubectl.stdout is not None and kubectl.stderr is not None
    try:
        async with asyncio.timeout(FORWARD_S):
            line = await kubectl.stdout.readline()
            if found := _FORWARDING.search(line):
                return int(found[1])
            errors = (await kubectl.stderr.read()).decode("utf-8", "replace").strip()
    except TimeoutError:
        errors = f"it did not answer within {FORWARD_S:g} s"
    raise Failed(
        f"kubectl cannot forward a port to pod {pod}: {errors or 'it gave no reason'}. It takes the "
        "right to create pods/portforward (and does not reach every pod under gVisor); the patch "
        "can be had when the task has ended."
    )
