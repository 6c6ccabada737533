"""The process node: a kubelet for the sandbox pods that the scheduler sends to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from ratchet.api import names
from ratchet.edges.kube import APPLY, Kube, ours

from tests.cluster import Cluster
from tests.proof.node.addresses import user_of
from tests.proof.node.bare import BareSandbox
from tests.proof.node.folders import make_bundle
from tests.proof.node.pod import Front, Machine, Pod
from tests.proof.node.registration import Registration
from tests.proof.node.sandbox import RunningSandbox
from tests.proof.node.watch import PodWatch

Object = dict[str, Any]
PACKAGE = Path(__file__).parents[3] / "sandbox-image"
SHUTDOWN_GRACE_S = 1.0
SHUTDOWN_S = 60.0
"""Within what the API server must have forgotten all pods of a node that ends."""
LOOK_EVERY_S = 0.02


class ProcessNode:
    """A node of `cluster` for sandboxes as processes. Use it as `async with`, before the operator.

    ::

        async with ProcessNode(cluster, tmp_path) as node:
            await node.adopt(namespace)            # its tasks' sandboxes run here from now on
            node.arm("killed", server="reserved=kill")      # first start of that task's sandbox
            ... apply the task "killed" ...
            sandbox = await node.wait_for("killed")          # its newest sandbox, once Ready
            sandbox.kill_server(); sandbox.stop_runner(); await sandbox.lose_pod()
            assert sandbox.struck() == ["reserved kill"]

    `logs` gets ``<pod>.server.log`` and ``<pod>.runner.log`` of each pod. `environment` is added
    to that of servers and runners. `front` puts something between operator and server, such as
    `tests.proof.sandboxproxy.SandboxProxy.front`. `bare`: servers live in the test's own process
    and every call ends Ok at once without being run (`tests.proof.node.bare`), so that hundreds
    of sandboxes are possible; those are in `sandboxes`, and `sandbox` and `wait_for` know none.

    Where the test is root, commands run as a user of their own for each sandbox; all that they
    started ends with the runner, as in a pod. What differs from a pod: the workspace is not at
    /workspace, and file systems and network are those of this machine.

    Leaving the context kills all sandboxes, deletes their pods at once, and raises what went
    wrong in the node's own work; so end the operator before.
    """

    def __init__(
        self,
        cluster: Cluster,
        logs: Path,
        *,
        environment: Mapping[str, str] | None = None,
        front: Front | None = None,
        bare: bool = False,
    ) -> None:
        self.name = f"processes-{uuid.uuid4().hex[:8]}"
        """Name of the node and of its RuntimeClass."""
        self.sandboxes: dict[str, Pod] = {}
        """All that ever ran here, by uid of the pod, ended ones too."""
        self._cluster = cluster
        self._logs = logs
        self._environment = dict(environment or {})
        self._front = front
        self._kind: type[Pod] = BareSandbox if bare else RunningSandbox
        self._armed: list[tuple[str | None, str, str]] = []
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._stack = contextlib.AsyncExitStack()
        self._machine: Machine | None = None

    # --- for tests ---

    async def adopt(self, namespace: str, image: str = "sandbox:processes") -> None:
        """Make, or change, the SandboxClass "default" of a namespace so that its pods come here."""
        await self._api.request(
            "PATCH",
            ours(names.CLASS_PLURAL, namespace, names.DEFAULT_CLASS),
            self.sandbox_class(image),
            params={"fieldManager": self.name, "force": "true"},
            content_type=APPLY,
        )

    def sandbox_class(self, image: str = "sandbox:processes", **spec: Any) -> Object:
        """The SandboxClass "default" whose pods come here. The image is only a name."""
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.CLASS_KIND,
            "metadata": {"name": names.DEFAULT_CLASS},
            "spec": {"image": image, "runtimeClassName": self.name, **spec},
        }

    def sandbox(self, task: str) -> RunningSandbox:
        """The newest sandbox of a task, given by its uid or its name. Raises KeyError."""
        every = (s for s in self.sandboxes.values() if isinstance(s, RunningSandbox))
        mine = [sandbox for sandbox in every if task in (sandbox.task_uid, sandbox.task)]
        if not mine:
            raise KeyError(f"node {self.name} has seen no sandbox of task {task}")
        return max(mine, key=lambda s: s.generation)

    async def wait_for(
        self, task: str, *, generation: int = 1, within_s: float = 60.0
    ) -> RunningSandbox:
        """The newest sandbox of a task once it is Ready, of this generation or a later one."""
        async with asyncio.timeout(within_s):
            while True:
                with contextlib.suppress(KeyError):
                    found = self.sandbox(task)
                    if found.generation >= generation and found.ready:
                        return found
                await asyncio.sleep(LOOK_EVERY_S)

    def arm(self, task: str | None = None, *, server: str = "", runner: str = "") -> None:
        """Failpoints for the first start of the next sandbox, of this task (by name) or of any.

        Each call is used up by one sandbox. What a failpoint looks like:
        `ratchet_sandbox.failpoints`.
        """
        self._armed.append((task, server, runner))

    # --- a context manager ---

    async def __aenter__(self) -> ProcessNode:
        async with contextlib.AsyncExitStack() as stack:
            api = await Kube.connect(Path(self._cluster.kubeconfig), self._cluster.context)
            await stack.enter_async_context(api)
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-node-")))
            self._machine = self._prepare(api, session, root)
            registration = Registration(api, self.name)
            stack.push_async_callback(registration.remove)
            await registration.make()
            where = (self._cluster.kubeconfig, self._cluster.context, self.name)
            watch = await PodWatch.open(*where)
            stack.push_async_callback(watch.close)
            stack.push_async_callback(self._end_all)
            for work in (registration.keep(), self._follow(watch)):
                stack.push_async_callback(_cancel, asyncio.create_task(work))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        failures = [failure for s in self.sandboxes.values() for failure in s.failures]
        if failures:
            raise BaseExceptionGroup(f"node {self.name} could not play a kubelet", failures)

    def _prepare(self, api: Kube, session: aiohttp.ClientSession, root: Path) -> Machine:
        root.chmod(0o711)
        package = root / "package"
        leave_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE / "ratchet_sandbox", package / "ratchet_sandbox", ignore=leave_out)
        package.chmod(0o755)
        self._logs.mkdir(parents=True, exist_ok=True)
        (root / "pods").mkdir()
        (root / "pods").chmod(0o711)
        python = _python_for_others(package) if os.geteuid() == 0 else None
        return Machine(
            api=api,
            session=session,
            root=root / "pods",
            logs=self._logs,
            server_python=sys.executable,
            runner_python=python or sys.executable,
            package=package,
            bundle=make_bundle(root / "bundle"),
            separate_users=python is not None,
            environment=self._environment,
            front=self._front,
        )

    @property
    def _api(self) -> Kube:
        return self._here.api

    @property
    def _here(self) -> Machine:
        if self._machine is None:
            raise RuntimeError("use the node as `async with ProcessNode(...) as node`")
        return self._machine

    # --- the kubelet ---

    async def _follow(self, watch: PodWatch) -> None:
        async with contextlib.aclosing(watch.changes()) as changes:
            async for every, pod in changes:
                if every is None:
                    self._see(pod)
                else:
                    self._see_all(every)

    def _see_all(self, every: list[Object]) -> None:
        for pod in every:
            self._see(pod)
        present = {pod["metadata"]["uid"] for pod in every}
        for uid, sandbox in self.sandboxes.items():
            if uid not in present:
                self._let_go(sandbox, 0, delete=False)

    def _see(self, pod: Object) -> None:
        metadata = pod["metadata"]
        sandbox = self.sandboxes.get(metadata["uid"])
        if sandbox is None:
            self._meet(pod)
        elif metadata.get("deleted"):
            self._let_go(sandbox, 0, delete=False)
        elif metadata.get("deletionTimestamp"):
            grace = float(metadata.get("deletionGracePeriodSeconds") or 0)
            self._let_go(sandbox, grace, delete=True)
        elif not sandbox.lost:
            sandbox.observe(pod)

    def _meet(self, pod: Object) -> None:
        """A pod that was not seen before."""
        metadata = pod["metadata"]
        if metadata.get("deleted") or pod["status"].get("phase") in ("Failed", "Succeeded"):
            return
        if names.LABEL_TASK_UID not in (metadata.get("labels") or {}):
            return
        sandbox = self._kind(self._here, pod)
        self.sandboxes[sandbox.uid] = sandbox
        if metadata.get("deletionTimestamp"):
            self._let_go(sandbox, 0, delete=True)
            return
        server, runner = self._failpoints_for(sandbox.task)
        sandbox.set_failpoint(server=server, runner=runner)
        sandbox.begin()

    def _failpoints_for(self, task: str) -> tuple[str, str]:
        for armed in self._armed:
            wanted, server, runner = armed
            if wanted in (None, task):
                self._armed.remove(armed)
                return server, runner
        return "", ""

    def _let_go(self, sandbox: Pod, grace_s: float, *, delete: bool) -> None:
        if sandbox.uid not in self._ending:
            ending = sandbox.end(grace_s, delete=delete)
            self._ending[sandbox.uid] = asyncio.create_task(ending)

    async def _end_all(self) -> None:
        for sandbox in self.sandboxes.values():
            self._let_go(sandbox, SHUTDOWN_GRACE_S, delete=True)
        async with asyncio.timeout(SHUTDOWN_S):
            await asyncio.gather(*self._ending.values())


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    (failure,) = await asyncio.gather(task, return_exceptions=True)
    if failure is not None and not isinstance(failure, asyncio.CancelledError):
        raise failure


def _python_for_others(package: Path) -> str | None:
    """A Python that a user of no account can start the runner with; None if there is none."""
    user = user_of("127.16.0.1")
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run(
                [python, "-P", "-c", "import ratchet_sandbox.runner.__main__"],
                env={"PYTHONPATH": str(package)},
                user=user,
                group=user,
                extra_groups=[],
                cwd="/",
                capture_output=True,
            )
        except OSError:  # cannot be started by that user
            continue
        if done.returncode == 0:
            return python
    return None
