"""The objects of sandboxes in the cluster: made, looked at and deleted through the API server."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from ratchet.api import names
from ratchet.build import secret as secrets
from ratchet.build.files import StartFile, sandbox_files
from ratchet.build.generation import Generation, Manifest
from ratchet.build.networkpolicy import sandbox_network_policy
from ratchet.build.pod import sandbox_pod
from ratchet.build.secret import sandbox_secret
from ratchet.build.settings import SandboxSettings
from ratchet.core.config import SandboxConfig
from ratchet.edges.answers import FAILURES, Meaning, away, find, meaning
from ratchet.edges.certificates import Identity, make_identity, server_name
from ratchet.edges.kube import Api, ApiError, core
from ratchet.ports import TaskRef

Object = dict[str, Any]


def network_policies(namespace: str, name: str = "") -> str:
    """Path of a NetworkPolicy, or of all of a namespace."""
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    return f"{path}/{name}" if name else path


class Refused(Exception):
    """The API server will not have an object of a sandbox. The text says which and why."""

    def __init__(self, what: str, error: ApiError) -> None:
        super().__init__(f"The API server refuses the sandbox's {what}: {error.message}")
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
        """Certificate and token of this generation out of its Secret; None where that is gone."""
        found = await find(self._api, core("secrets", generation.namespace, generation.name))
        data = (found or {}).get("data") or {}
        try:
            certificate, key, token = (
                base64.b64decode(data[name]).decode()
                for name in (secrets.CERTIFICATE, secrets.KEY, secrets.TOKEN)
            )
        except (KeyError, ValueError):
            return None
        return Identity(certificate, key, token)

    async def create(
        self, generation: Generation, config: SandboxConfig, files: tuple[StartFile, ...]
    ) -> None:
        """Make the pod, after all that it needs. What is there already is left as it is.

        Raises Refused, and FilesUnfit where the files do not fit into a ConfigMap.
        """
        namespace = generation.namespace
        identity = make_identity(server_name(generation.task_uid, generation.number))
        secret = sandbox_secret(
            generation,
            certificate=identity.certificate,
            key=identity.key,
            token=identity.token,
        )
        await asyncio.gather(
            self._create(core("secrets", namespace), secret),
            self._create(core("configmaps", namespace), sandbox_files(generation, files)),
            self._create(
                network_policies(namespace), sandbox_network_policy(generation, self._settings)
            ),
        )
        pod = sandbox_pod(generation, config, self._settings)
        await self._create(core("pods", namespace), pod)

    async def remove(self, task: TaskRef) -> None:
        """Delete all objects of all sandboxes of a task. Returns when the deletion is accepted."""
        selector = names.task_selector(task.uid, component=names.COMPONENT_SANDBOX)
        await asyncio.gather(
            *(
                self._delete_all(path, selector)
                for path in (
                    core("pods", task.namespace),
                    core("secrets", task.namespace),
                    core("configmaps", task.namespace),
                    network_policies(task.namespace),
                )
            )
        )

    async def _create(self, path: str, manifest: Manifest) -> None:
        what = f"{manifest['kind']} {manifest['metadata']['name']}"
        try:
            await self._api.request("POST", path, manifest)
        except ApiError as error:
            if meaning(error) is Meaning.EXISTS:
                return
            if meaning(error) is Meaning.UNKNOWN or error.status in (401, 409, 410, 429):
                raise away(error) from error
            raise Refused(what, error) from error
        except FAILURES as failure:
            raise away(failure) from failure

    async def _delete_all(self, path: str, selector: str) -> None:
        try:
            await self._api.request("DELETE", path, params={"labelSelector": selector})
        except FAILURES as failure:
            if meaning(failure) is not Meaning.GONE:
                raise away(failure) from failure
