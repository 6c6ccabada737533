"""The objects of sandboxes in the cluster: made, looked at and deleted through the API server."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from ratchet.api import names
from ratchet.build import secret as secrets
from ratchet.build.claim import workspace_claim
from ratchet.build.egress import CLOSED, Egress
from ratchet.build.files import StartFile, check_files, sandbox_files
from ratchet.build.generation import Generation, Manifest
from ratchet.build.git import with_clone
from ratchet.build.networkpolicy import cilium_network_policy, sandbox_network_policy
from ratchet.build.pod import sandbox_pod
from ratchet.build.secret import sandbox_secret
from ratchet.build.settings import SandboxSettings
from ratchet.core.config import GitSource, SandboxConfig, VolumeClaim
from ratchet.edges.answers import FAILURES, Meaning, away, find, meaning
from ratchet.edges.certificates import Identity, make_identity, server_name
from ratchet.edges.egress import cilium_policies
from ratchet.edges.kube import Api, ApiError, ApiUnreachable, core
from ratchet.failpoints import Point, step
from ratchet.ports import TaskRef

Object = dict[str, Any]


def network_policies(namespace: str, name: str = "") -> str:
    """Path of a NetworkPolicy, or of all of a namespace."""
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    return f"{path}/{name}" if name else path


_INSECURE = "violates PodSecurity"
_ROOT_NEEDS = (
    " A SandboxClass with allowRoot needs a namespace with the label"
    " pod-security.kubernetes.io/enforce=baseline: set it, or take allowRoot out of the class."
)


class Refused(Exception):
    """The API server will not have an object of a sandbox. The text says which and why."""

    def __init__(self, what: str, error: ApiError) -> None:
        advice = _ROOT_NEEDS if _INSECURE in error.message else ""
        super().__init__(f"The API server refuses the sandbox's {what}: {error.message}{advice}")
        self.quota = "exceeded quota" in error.message
        """A ResourceQuota is used up: it may be freed without anybody changing the task."""


class Pods:
    """Sandbox pods and what belongs to them. All methods raise JournalAway where the API is away."""

    def __init__(self, api: Api, settings: SandboxSettings) -> None:
        self._api = api
        self._settings = settings

    async def find(self, generation: Generation) -> Object | None:
        """The pod of this generation, None if there is none."""
        return await find(self._api, core("pods", generation.namespace, generation.name))

    async def identity(self, generation: Generation) -> Identity | None:
        """Certificate and token of this generation out of its Secret; None where that is gone or damaged."""
        path = core("secrets", generation.namespace, generation.name)
        return identity_in(await find(self._api, path))

    async def leftover(self, generation: Generation) -> bool:
        """Whether a Secret is there although the pod is not: that of an earlier pod of this name.

        Kubernetes removes it soon. A new pod must not be made before: it would mount the old one.
        """
        path = core("secrets", generation.namespace, generation.name)
        return await find(self._api, path) is not None

    async def is_complete(self, generation: Generation, pod_uid: str) -> bool:
        """Whether this pod has all that it needs: its Secret is there, which is made last."""
        found = await find(self._api, core("secrets", generation.namespace, generation.name))
        return found is not None and _belongs_to(found, pod_uid)

    async def create(
        self,
        generation: Generation,
        config: SandboxConfig,
        files: tuple[StartFile, ...],
        git: GitSource | None = None,
        egress: Egress = CLOSED,
    ) -> str:
        """Make the pod and then all that it needs; its uid, empty if `complete` says False.

        Raises Refused, FilesUnfit, and ValueError for an amount that is no quantity.
        """
        check_files(files)
        manifest = sandbox_pod(generation, config, self._settings, egress)
        if git is not None:
            manifest = with_clone(manifest, git, config)
        pod = await self._create(core("pods", generation.namespace), manifest, Point.PREPARE_POD)
        uid = str(pod["metadata"]["uid"])
        return uid if await self.complete(generation, uid, files, egress) else ""

    async def complete(
        self,
        generation: Generation,
        pod_uid: str,
        files: tuple[StartFile, ...],
        egress: Egress = CLOSED,
    ) -> bool:
        """Make what the pod needs, as far as it is not there. Raises Refused and FilesUnfit.

        The Secret comes last: without it the pod cannot start, so it never runs without its
        network policy. False if parts of an earlier pod are in the way; Kubernetes removes them.
        """
        namespace = generation.namespace
        policy = sandbox_network_policy(generation, pod_uid, self._settings, egress)
        parts = [
            (network_policies(namespace), policy),
            (core("configmaps", namespace), sandbox_files(generation, pod_uid, files)),
        ]
        hosts = cilium_network_policy(generation, pod_uid, egress)
        if hosts is not None:
            parts.append((cilium_policies(namespace), hosts))
        mine = await asyncio.gather(*(self._part(path, manifest) for path, manifest in parts))
        if not all(mine):
            return False
        identity = make_identity(server_name(generation.task_uid, generation.number))
        secret = sandbox_secret(
            generation,
            pod_uid,
            certificate=identity.certificate,
            key=identity.key,
            token=identity.token,
        )
        return await self._part(core("secrets", namespace), secret, Point.PREPARE_SECRET)

    async def claim(self, generation: Generation) -> Object | None:
        """The claim of the task's workspace, None if there is none."""
        return await find(self._api, _claims(generation.namespace, generation.claim_name))

    async def make_claim(self, generation: Generation, wanted: VolumeClaim) -> None:
        """Make the claim, if there is none. Raises Refused."""
        await self._create(_claims(generation.namespace), workspace_claim(generation, wanted))

    async def others(self, generation: Generation) -> list[Object]:
        """The pods of all other generations of the task."""
        every = await self._every(generation.namespace, generation.task_uid)
        return [pod for pod in every if pod["metadata"]["name"] != generation.name]

    async def end(self, stored: Object) -> None:
        """Delete this pod or claim, and none that has its name by then."""
        where, metadata = "pods", stored["metadata"]
        if stored.get("kind") == "PersistentVolumeClaim":
            where = "persistentvolumeclaims"
        if not metadata.get("deletionTimestamp"):
            path = core(where, metadata["namespace"], metadata["name"])
            await self._delete(path, {"preconditions": {"uid": metadata["uid"]}})

    async def remove(self, task: TaskRef) -> None:
        """Delete the pods of all sandboxes of a task; what belongs to them follows.

        The claim of the workspace stays as long as the task, for whoever wants to look at the work.
        Returns when the deletion is accepted.
        """
        every = await self._every(task.namespace, task.uid)
        await asyncio.gather(
            *(self._delete(core("pods", task.namespace, pod["metadata"]["name"])) for pod in every)
        )

    async def _every(self, namespace: str, task_uid: str) -> list[Object]:
        """The pods of all sandboxes of a task. Of a list's items the kind is not said."""
        selector = names.task_selector(task_uid, component=names.COMPONENT_SANDBOX)
        pods = core("pods", namespace)
        try:
            found = await self._api.request("GET", pods, params={"labelSelector": selector})
        except FAILURES as failure:
            if meaning(failure) is Meaning.GONE:
                return []
            raise away(failure) from failure
        return list(found.get("items") or ())

    async def _part(self, path: str, manifest: Manifest, point: Point | None = None) -> bool:
        """Make an object of a pod; False if one of that name belongs to another pod."""
        stored = await self._create(path, manifest, point)
        (mine,) = manifest["metadata"]["ownerReferences"]
        return _belongs_to(stored, mine["uid"])

    async def _create(self, path: str, manifest: Manifest, point: Point | None = None) -> Object:
        """Make an object; if one of that name is there, that one is returned. Raises Refused."""
        name = manifest["metadata"]["name"]
        try:
            if point is None:
                return await self._api.request("POST", path, manifest)
            return await step(
                point, lambda: self._api.request("POST", path, manifest), ApiUnreachable
            )
        except ApiError as error:
            if meaning(error) is Meaning.EXISTS:
                return await self._existing(f"{path}/{name}", error)
            if meaning(error) is Meaning.UNKNOWN or error.status in (401, 409, 410, 429):
                raise away(error) from error
            raise Refused(f"{manifest['kind']} {name}", error) from error
        except FAILURES as failure:
            raise away(failure) from failure

    async def _existing(self, path: str, error: ApiError) -> Object:
        found = await find(self._api, path)
        if found is None:  # deleted in between: the next look makes it
            raise away(error) from error
        return found

    async def _delete(self, path: str, options: Manifest | None = None) -> None:
        try:
            await self._api.request("DELETE", path, options)
        except FAILURES as failure:
            # Conflict: another object has the name by now, and is not to be deleted.
            if meaning(failure) not in (Meaning.GONE, Meaning.LOST_RACE):
                raise away(failure) from failure


def _claims(namespace: str, name: str = "") -> str:
    return core("persistentvolumeclaims", namespace, name)


def _belongs_to(stored: Object, pod_uid: str) -> bool:
    owners = stored["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == pod_uid for owner in owners)


def identity_in(secret: Object | None) -> Identity | None:
    """Certificate and token in the Secret of a sandbox; None where they are gone or damaged."""
    data = (secret or {}).get("data") or {}
    try:
        certificate, key, token = (
            base64.b64decode(data[name]).decode()
            for name in (secrets.CERTIFICATE, secrets.KEY, secrets.TOKEN)
        )
    except (KeyError, ValueError):
        return None
    if not (token.isascii() and token.isprintable()):
        return None
    return Identity(certificate, key, token)
