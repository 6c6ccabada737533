"""The runner by an image volume: nothing is copied, and everything works as with the copy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from ratchet.build.settings import SandboxSettings
from ratchet.core.records import Outcome
from ratchet.edges.kube import Kube

from tests.cluster import Cluster
from tests.e2e import images
from tests.e2e.any_image.conftest import start
from tests.e2e.any_image.test_pod_security import enforce
from tests.e2e.box import Boxes, open_boxes, shown

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

KUBERNETES = (1, 35)


@pytest.fixture
async def boxes(cluster: Cluster, namespace: str, api: Kube) -> AsyncIterator[Boxes]:
    """Where such sandboxes come from, in a namespace as strict as there is."""
    found = await api.request("GET", "/version")
    version = int(found["major"]), int("".join(filter(str.isdigit, found["minor"])))
    if version < KUBERNETES or cluster.provider != "local":
        pytest.skip("needs Kubernetes 1.35 and nodes that are known to offer image volumes")
    settings = SandboxSettings(images.SERVER, images.RUNNER, namespace)
    async with open_boxes(cluster, namespace, replace(settings, image_volumes=True)) as home:
        await enforce(home, "restricted")
        yield home


@pytest.mark.parametrize("runtime_class", ["", "gvisor"], ids=["runc", "gvisor"])
async def test_every_tool_works(boxes: Boxes, runtime_class: str) -> None:
    box = await start(boxes, image=images.BUSYBOX, runtime_class=runtime_class)
    written = await box.use("write_file", path="a.txt", content="one\n")
    assert written.outcome == Outcome.OK, shown(written)
    found = await box.use("grep", pattern="on.")
    assert "a.txt:1:" in found.content, shown(found)
    who = await box.bash("whoami; ls -l /ratchet/runtime")
    assert who.content.startswith("ratchet\n") and "lib -> /ratchet/bundle/lib" in who.content
    assert "+one\n" in (await box.sandbox.patch()).inline


@pytest.mark.parametrize("path", ["/ratchet/bundle/bin/x", "/ratchet/runtime/bin/x"])
async def test_nothing_of_it_can_be_changed(boxes: Boxes, path: str) -> None:
    box = await start(boxes)
    done = await box.bash(f"touch {path}")
    assert done.outcome == Outcome.FAILED and "Read-only" in done.content, shown(done)
