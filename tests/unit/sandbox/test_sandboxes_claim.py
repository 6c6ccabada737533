"""Sandboxes whose workspace is on a claim: one pod at a time, made again as long as the claim lives."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ratchet.api import names
from ratchet.core.conditions import Reason
from ratchet.core.config import VolumeClaim
from ratchet.core.facts import SandboxRef
from ratchet.edges.kube import ApiError
from ratchet.edges.sandboxes import KubeSandbox, KubeSandboxes, Seen
from ratchet.ports import SandboxGone, SandboxPending, SandboxReady

from tests.unit.sandbox.servers import UID, ScriptedRunner, running_server
from tests.unit.sandbox.test_sandboxes import (
    CONFIG,
    CONFIG_MAPS,
    FIRST,
    NAME,
    PODS,
    SECRETS,
    SETTINGS,
    TASK,
    PretendedApi,
    api,
    home,
    sandbox,
)

__all__ = ["api", "home", "sandbox"]

ON_CLAIM = replace(CONFIG, sandbox=replace(CONFIG.sandbox, claim=VolumeClaim("1Gi")))
USED = SandboxRef(1, "ledger-1", NAME)
CLAIMS = "/api/v1/namespaces/team-a/persistentvolumeclaims"
CLAIM = f"fix-it-{UID[:8]}-workspace"


async def prepared(sandbox: KubeSandbox, wanted: SandboxRef = USED) -> Seen:
    return await sandbox.prepare(ON_CLAIM, wanted)


async def made(sandbox: KubeSandbox, api: PretendedApi) -> None:
    """The first pod has run, and its ledger is known."""
    await prepared(sandbox, FIRST)
    api.status(phase="Running")


def pod_goes(api: PretendedApi) -> None:
    """The pod is deleted, and what belongs to it."""
    api._delete(f"{PODS}/{NAME}")


async def test_the_claim_is_made_before_the_pod_that_mounts_it(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await prepared(sandbox, FIRST)
    assert api.created[:2] == [f"{CLAIMS}/{CLAIM}", f"{PODS}/{NAME}"]
    volumes = api.objects[f"{PODS}/{NAME}"]["spec"]["volumes"]
    assert {"claimName": CLAIM} in [v.get("persistentVolumeClaim") for v in volumes]


async def test_a_task_without_a_claim_asks_for_none(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await sandbox.prepare(CONFIG, FIRST)
    await sandbox.remove()
    assert not [path for path in (*api.created, *api.deleted) if path.startswith(CLAIMS)]


async def test_a_lost_pod_is_made_again_on_the_same_claim(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await made(sandbox, api)
    claim = api.objects[f"{CLAIMS}/{CLAIM}"]
    pod_goes(api)
    seen = await prepared(sandbox)
    assert isinstance(seen, SandboxPending) and seen.reason is Reason.SANDBOX_STARTING
    assert f"{PODS}/{NAME}" in api.objects and api.objects[f"{CLAIMS}/{CLAIM}"] is claim
    assert f"{SECRETS}/{NAME}" in api.objects, "with a token and a certificate of its own"


async def test_the_next_pod_needs_no_start_files(api: PretendedApi, sandbox: KubeSandbox) -> None:
    await made(sandbox, api)
    pod_goes(api)
    del api.objects[f"{CONFIG_MAPS}/more"]
    seen = await prepared(sandbox)
    assert isinstance(seen, SandboxPending) and not seen.hopeless


async def test_an_evicted_pod_is_deleted_before_it_is_made_again(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await made(sandbox, api)
    first = api.objects[f"{PODS}/{NAME}"]["metadata"]["uid"]
    api.status(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    seen = await prepared(sandbox)
    assert isinstance(seen, SandboxPending) and seen.reason is Reason.EVICTED
    assert "low on resource: memory" in seen.message and f"{PODS}/{NAME}" not in api.objects
    assert api.deleted[-1] == f"{PODS}/{NAME}"
    await prepared(sandbox)
    assert api.objects[f"{PODS}/{NAME}"]["metadata"]["uid"] != first


async def test_a_pod_that_is_only_being_deleted_is_waited_for(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await made(sandbox, api)
    api.objects[f"{PODS}/{NAME}"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    seen = await prepared(sandbox)
    assert isinstance(seen, SandboxPending) and "being deleted" in seen.message
    assert len([path for path in api.created if path.startswith(PODS)]) == 1


async def test_a_claim_that_is_gone_is_a_sandbox_that_is_gone(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await made(sandbox, api)
    pod_goes(api)
    api._delete(f"{CLAIMS}/{CLAIM}")
    seen = await prepared(sandbox)
    assert isinstance(seen, SandboxGone) and CLAIM in seen.message
    await prepared(sandbox, SandboxRef(2))
    label = api.objects[f"{CLAIMS}/{CLAIM}"]["metadata"]["labels"][names.LABEL_GENERATION]
    assert label == "2", "the next generation makes its own"


async def test_a_pod_that_never_ran_is_not_left_to_start_on_a_new_claim(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await made(sandbox, api)
    api.status(phase="Pending")
    api._delete(f"{CLAIMS}/{CLAIM}")
    assert isinstance(await prepared(sandbox), SandboxGone)
    assert f"{PODS}/{NAME}" not in api.objects


async def test_a_claim_that_is_being_deleted_is_waited_for(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await made(sandbox, api)
    pod_goes(api)
    api.objects[f"{CLAIMS}/{CLAIM}"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    seen = await prepared(sandbox)
    assert isinstance(seen, SandboxPending) and f"{PODS}/{NAME}" not in api.objects


async def test_a_claim_whose_volume_is_no_more_is_deleted_and_lost(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await made(sandbox, api)
    pod_goes(api)
    api.objects[f"{CLAIMS}/{CLAIM}"]["status"] = {"phase": "Lost"}
    assert isinstance(await prepared(sandbox), SandboxPending)
    assert isinstance(await prepared(sandbox), SandboxGone)


async def test_a_claim_of_somebody_else_is_left_alone(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    theirs: dict[str, Any] = {"metadata": {"name": CLAIM, "namespace": "team-a", "uid": "x"}}
    api.objects[f"{CLAIMS}/{CLAIM}"] = theirs
    seen = await prepared(sandbox, FIRST)
    assert isinstance(seen, SandboxPending) and seen.hopeless and CLAIM in seen.message
    assert f"{PODS}/{NAME}" not in api.objects
    await sandbox.remove()
    assert api.objects[f"{CLAIMS}/{CLAIM}"] is theirs


async def test_an_owner_that_is_behind_makes_no_second_pod(
    api: PretendedApi, home: KubeSandboxes, sandbox: KubeSandbox
) -> None:
    await made(sandbox, api)
    pod_goes(api)
    api._delete(f"{CLAIMS}/{CLAIM}")
    await prepared(home.of(TASK, epoch=4), SandboxRef(2))
    for wanted in (USED, FIRST):
        assert isinstance(await prepared(sandbox, wanted), SandboxGone)
    assert f"{PODS}/{NAME}" not in api.objects


async def test_the_pod_of_a_generation_before_goes_first(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await made(sandbox, api)
    seen = await prepared(sandbox, SandboxRef(2))
    assert isinstance(seen, SandboxPending) and NAME in seen.message
    assert f"{PODS}/{NAME}" not in api.objects and len(api.pods) == 0
    await prepared(sandbox, SandboxRef(2))
    assert len(api.pods) == 1


async def test_what_the_api_server_says_of_the_claim_is_said(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    api.refuses[CLAIMS] = ApiError(403, "Forbidden", "exceeded quota: storage")
    seen = await prepared(sandbox, FIRST)
    assert isinstance(seen, SandboxPending) and not seen.hopeless
    assert (seen.reason, "exceeded quota" in seen.message) == (Reason.SANDBOX_UNSCHEDULABLE, True)
    api.refuses[CLAIMS] = ApiError(422, "Invalid", "spec.resources: no")
    again = await prepared(sandbox, FIRST)
    assert isinstance(again, SandboxPending) and again.hopeless


async def test_the_claim_outlives_the_end_of_the_task_as_the_tasks_own(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await made(sandbox, api)
    await sandbox.remove()
    assert not api.pods and f"{CLAIMS}/{CLAIM}" in api.objects
    (owner,) = api.objects[f"{CLAIMS}/{CLAIM}"]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("AgentTask", UID), "so it goes with the task"


async def test_why_a_pod_ended_is_still_said_when_it_is_gone(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await sandbox.prepare(CONFIG, FIRST)
    api.status(
        phase="Running",
        conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                     "message": "preempted"}],
    )  # fmt: skip
    api.objects[f"{PODS}/{NAME}"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await sandbox.prepare(CONFIG, USED)
    pod_goes(api)
    seen = await sandbox.prepare(CONFIG, USED)
    assert isinstance(seen, SandboxGone)
    assert (seen.reason, "preempted" in seen.message) == (Reason.EVICTED, True)


async def test_the_ledger_that_a_new_pod_finds_on_the_claim_is_the_one_that_is_known(
    api: PretendedApi, tmp_path: Path
) -> None:
    """Two lives of a real server on one folder, each with the certificate of its own pod."""
    async with running_server(tmp_path) as (server, _):
        here = KubeSandboxes(api, SETTINGS, port=server.port)
        one = here.of(TASK, epoch=3)
        runner = ScriptedRunner(server)
        await prepared(one, FIRST)

        def serves() -> None:
            ours = server.identity
            secret = {"token": ours.token, "tls.crt": ours.certificate, "tls.key": ours.key}
            api.objects[f"{SECRETS}/{NAME}"]["data"] = {
                name: base64.b64encode(value.encode()).decode() for name, value in secret.items()
            }
            api.ready()

        serves()
        await runner.join()
        first = await prepared(one, FIRST)
        assert isinstance(first, SandboxReady)
        pod_goes(api)
        assert isinstance(await prepared(one, first.sandbox), SandboxPending)
        await server.restart()
        serves()
        await ScriptedRunner(server, "shell-2").join()
        assert await prepared(one, first.sandbox) == first
        await here.close()


@pytest.mark.parametrize("wanted", [FIRST, USED])
async def test_a_pod_of_somebody_else_is_not_deleted(
    api: PretendedApi, sandbox: KubeSandbox, wanted: SandboxRef
) -> None:
    await made(sandbox, api)
    api.objects[f"{PODS}/{NAME}"]["metadata"]["labels"] = {}
    api.status(phase="Failed", reason="Evicted")
    await prepared(sandbox, wanted)
    assert f"{PODS}/{NAME}" in api.objects
