"""The API server with the CRDs in it, for the tests that talk to it directly."""

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from ratchet.api import names
from ratchet.api.crd import RESOURCES

from tests.cluster import current

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Kube:
    """The API server, seen from one namespace made for this module."""

    api: Any
    namespace: str
    environment: dict[str, str]

    def create(self, plural: str, name: str, spec: dict[str, Any], **options: Any) -> Any:
        kind = next(r.__name__ for r in RESOURCES if r.KIND.plural == plural)
        body = {"apiVersion": names.API_VERSION, "kind": kind, "spec": spec}
        return client.CustomObjectsApi(self.api).create_namespaced_custom_object(
            names.GROUP,
            names.VERSION,
            self.namespace,
            plural,
            {**body, "metadata": {"name": name}},
            **options,
        )

    def task(self, spec: dict[str, Any], name: str = "", **options: Any) -> Any:
        return self.create("agenttasks", name or unique("task"), spec, **options)

    def try_task(self, spec: dict[str, Any], name: str = "") -> str:
        """What the API server says to a task that it must refuse; nothing is stored."""
        with pytest.raises(ApiException) as refusal:
            self.task(spec, name, dry_run="All", field_validation="Strict")
        return said(refusal.value)

    def patch(self, plural: str, name: str, body: Any, *, status: bool = False) -> Any:
        """Merge patch where ``body`` is an object, JSON patch where it is a list."""
        objects = client.CustomObjectsApi(self.api)
        send = (
            objects.patch_namespaced_custom_object_status
            if status
            else objects.patch_namespaced_custom_object
        )
        # Unless told, the client sends a list as a merge patch, too.
        way = "json" if isinstance(body, list) else "merge"
        return send(
            names.GROUP,
            names.VERSION,
            self.namespace,
            plural,
            name,
            body,
            _content_type=f"application/{way}-patch+json",
        )

    def refuse(self, plural: str, name: str, body: Any, *, status: bool = False) -> str:
        """What the API server says to a patch that it must refuse."""
        with pytest.raises(ApiException) as refusal:
            self.patch(plural, name, body, status=status)
        return said(refusal.value)

    def kubectl(self, *arguments: str) -> str:
        done = subprocess.run(
            ["kubectl", "--namespace", self.namespace, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def said(refusal: ApiException) -> str:
    assert refusal.status in (400, 422), refusal
    return str(refusal.body)


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


@contextmanager
def with_crds() -> Iterator[Kube]:
    """The API server of the test cluster, with the CRDs and a namespace of its own."""
    cluster = current()
    environment = {
        **os.environ,
        "KUBECONFIG": cluster.kubeconfig,
        "PATH": f"{cluster.path}:{os.environ['PATH']}",
    }
    new_client: Any = config.new_client_from_config
    with new_client(cluster.kubeconfig, context=cluster.context) as api:
        server = Kube(api, unique("test-crds"), environment)
        server.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
        crds = [f"crd/{resource.KIND.plural}.{names.GROUP}" for resource in RESOURCES]
        server.kubectl("wait", "--for=condition=Established", "--timeout=30s", *crds)
        server.kubectl("create", "namespace", server.namespace)
        _await_served(server)
        yield server
        server.kubectl("delete", "namespace", server.namespace, "--wait=false")


def _await_served(kube: Kube) -> None:
    """Established is said a moment before the last of the kinds is served."""
    deadline = time.monotonic() + 30
    for resource in RESOURCES:
        while True:
            try:
                client.CustomObjectsApi(kube.api).list_namespaced_custom_object(
                    names.GROUP, names.VERSION, kube.namespace, resource.KIND.plural
                )
                break
            except ApiException as error:
                if error.status != 404 or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)
