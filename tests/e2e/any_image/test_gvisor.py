"""The same under gVisor: the user has a name, and root can do the work of root."""

from __future__ import annotations

import pytest
from ratchet.core.records import Outcome
from ratchet.edges.kube import ApiError, Kube

from tests.cluster import Cluster
from tests.e2e import images
from tests.e2e.any_image.conftest import start
from tests.e2e.any_image.test_root import PACKAGE
from tests.e2e.box import Boxes, shown
from tests.e2e.runtimes.conftest import GVISOR, PATH

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
async def gvisor(cluster: Cluster, api: Kube) -> None:
    """A cluster that is not ours may lack it."""
    try:
        await api.request("GET", f"{PATH}/{GVISOR.runtime_class}")
    except ApiError as error:
        if cluster.provider == "local":
            raise
        pytest.skip(f"this cluster has no RuntimeClass {GVISOR.runtime_class}: {error}")


async def test_the_user_of_a_bare_image_has_a_name_under_gvisor(boxes: Boxes) -> None:
    box = await start(boxes, image=images.BUSYBOX, runtime_class=GVISOR.runtime_class)
    who = await box.bash("whoami; id -u; touch /etc/passwd || echo kept")
    assert who.content.split()[:2] == ["ratchet", "10000"] and "kept" in who.content, shown(who)


async def test_root_installs_a_package_under_gvisor(boxes: Boxes) -> None:
    box = await start(boxes, allow_root=True, runtime_class=GVISOR.runtime_class)
    done = await box.bash(f"({PACKAGE}) && dpkg -i /tmp/hello.deb && useradd w && hello-there")
    assert done.outcome == Outcome.OK and "hello there" in done.content, shown(done)
    assert (await box.bash("touch /ratchet/runtime/x")).outcome == Outcome.FAILED
