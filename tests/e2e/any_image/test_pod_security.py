"""What the Pod Security of a namespace says about sandboxes."""

from __future__ import annotations

import pytest
from ratchet.core.conditions import Reason
from ratchet.core.records import Outcome
from ratchet.ports import SandboxPending

from tests.e2e import box
from tests.e2e.any_image.conftest import start
from tests.e2e.box import Boxes, shown

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

LABEL = "pod-security.kubernetes.io/enforce"


async def enforce(boxes: Boxes, level: str) -> None:
    await boxes.kubectl.run("label", "--overwrite", "namespace", boxes.kubectl.namespace,
                            f"{LABEL}={level}")  # fmt: skip


async def test_a_restricted_namespace_takes_a_sandbox(boxes: Boxes) -> None:
    await enforce(boxes, "restricted")
    started = await start(boxes, read_only_root=True, env=(("A", "a"),))
    done = await started.bash("echo $A")
    assert done.outcome == Outcome.OK and done.content == "a", shown(done)


async def test_a_baseline_namespace_takes_one_with_root(boxes: Boxes) -> None:
    await enforce(boxes, "baseline")
    started = await start(boxes, allow_root=True)
    done = await started.bash("id -u")
    assert done.outcome == Outcome.OK and done.content == "0", shown(done)


async def test_a_restricted_namespace_refuses_root_and_the_task_says_what_to_do(
    boxes: Boxes,
) -> None:
    await enforce(boxes, "restricted")
    unmade = await boxes.make(box.config(allow_root=True))
    seen = await unmade.until(SandboxPending)
    assert seen.hopeless and seen.reason is Reason.SANDBOX_FAILED
    assert 'violates PodSecurity "restricted' in seen.message
    assert "allowRoot" in seen.message and f"{LABEL}=baseline" in seen.message
