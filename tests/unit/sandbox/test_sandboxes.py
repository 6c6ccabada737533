"""The sandbox port: objects in a pretended API server, a real sandbox server as the pod."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ratchet.api import names
from ratchet.build.settings import SandboxSettings
from ratchet.core.conditions import Reason
from ratchet.core.config import Config, EgressPort, EgressRule, File, ModelConfig, SandboxConfig
from ratchet.core.facts import CallOrder, Enforcement, SandboxRef
from ratchet.core.keys import call_digest
from ratchet.edges.certificates import Identity
from ratchet.edges.kube import JSON, TIMEOUT_S, ApiError, ApiUnreachable, Params
from ratchet.edges.pods import Pods
from ratchet.edges.sandboxes import KubeSandbox, KubeSandboxes
from ratchet.ports import (
    JournalAway,
    SandboxAway,
    SandboxGone,
    SandboxPending,
    SandboxReady,
    SandboxRefused,
    TaskRef,
)
from ratchet_sandbox.protocol import Cancel, Outcome

from tests.unit.sandbox.servers import UID, ScriptedRunner, ServerProcess, running_server

TASK = TaskRef("team-a", "fix-it", UID)
SETTINGS = SandboxSettings("server:1", "runner:1", "ratchet-system")
CONFIG = Config(
    goal="g",
    model=ModelConfig("default", "http://m", "m"),
    sandbox=SandboxConfig(image="python:3.12"),
    files=(File("a.py", "print()"), File("b", config_map="more", key="k", mode="0755")),
)
FIRST = SandboxRef(1)
NAME = f"fix-it-{UID[:8]}-g1"
PODS = "/api/v1/namespaces/team-a/pods"
SECRETS = "/api/v1/namespaces/team-a/secrets"
CONFIG_MAPS = "/api/v1/namespaces/team-a/configmaps"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/team-a/networkpolicies"
ARGUMENTS = '{"command":"true"}'
ORDER = CallOrder(f"{UID}/1/0", "bash", ARGUMENTS, call_digest("bash", ARGUMENTS))


class PretendedApi:
    """Objects by path, with the answers of an API server to what sandboxes ask."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.fails: Exception | None = None
        self.refuses: dict[str, ApiError] = {}
        self.created: list[str] = []
        self.deleted: list[str] = []

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Params | None = None,
        content_type: str = JSON,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.fails:
            raise self.fails
        if method == "POST":
            return self._create(path, body)
        if method == "DELETE":
            return self._delete(path)
        if params:
            return self._list(path, params)
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        return self.objects[path]

    def _create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path in self.refuses:
            raise self.refuses[path]
        where = f"{path}/{body['metadata']['name']}"
        if where in self.objects:
            raise ApiError(409, "AlreadyExists", f"{where} already exists")
        stored: dict[str, Any] = json.loads(json.dumps(body))
        text = stored.pop("stringData", {})
        if text:
            stored["data"] = {k: base64.b64encode(v.encode()).decode() for k, v in text.items()}
        stored["metadata"]["uid"] = f"uid-{len(self.created)}"
        self.objects[where] = stored
        self.created.append(where)
        return stored

    def _list(self, path: str, params: Params) -> dict[str, Any]:
        wanted = dict(pair.split("=") for pair in str(params["labelSelector"]).split(","))
        found = []
        for where, stored in self.objects.items():
            labels: Mapping[str, str] = stored["metadata"].get("labels") or {}
            inside = where.rsplit("/", 1)[0] == path
            if inside and all(labels.get(k) == v for k, v in wanted.items()):
                found.append(stored)
        return {"items": found}

    def _delete(self, path: str) -> dict[str, Any]:
        """Delete an object and, as the garbage collector does later, what it owns."""
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        uid = self.objects.pop(path)["metadata"].get("uid")
        self.deleted.append(path)
        for where, stored in list(self.objects.items()):
            owners = stored["metadata"].get("ownerReferences") or ()
            if any(owner["uid"] == uid for owner in owners):
                del self.objects[where]
        return {}

    @property
    def pods(self) -> list[str]:
        return [path for path in self.objects if path.startswith(PODS)]

    def identity(self) -> Identity:
        data = self.objects[f"{SECRETS}/{NAME}"]["data"]
        read = {name: base64.b64decode(value).decode() for name, value in data.items()}
        return Identity(read["tls.crt"], read["tls.key"], read["token"])

    def status(self, **status: Any) -> None:
        self.objects[f"{PODS}/{NAME}"]["status"] = status

    def ready(self) -> None:
        conditions = [{"type": "Ready", "status": "True"}]
        self.status(phase="Running", podIP="127.0.0.1", conditions=conditions)


PORTS = (EgressPort(443),)


def opening(*rules: EgressRule) -> Config:
    """The configuration of a class with these egress rules."""
    return replace(CONFIG, sandbox=replace(CONFIG.sandbox, egress=rules))


@pytest.fixture
def api() -> PretendedApi:
    api = PretendedApi()
    api.objects[f"{CONFIG_MAPS}/more"] = {"metadata": {}, "binaryData": {"k": "/wA="}}
    return api


@pytest.fixture
async def home(api: PretendedApi) -> AsyncIterator[KubeSandboxes]:
    home = KubeSandboxes(api, SETTINGS)
    yield home
    await home.close()


@pytest.fixture
def sandbox(home: KubeSandboxes) -> KubeSandbox:
    return home.of(TASK, epoch=3)


# --- making and looking ---


async def test_a_pod_never_made_is_made_with_all_it_needs(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    seen = await sandbox.prepare(CONFIG, FIRST)
    assert isinstance(seen, SandboxPending) and seen.reason is Reason.SANDBOX_STARTING
    assert set(api.created[1:3]) == {f"{CONFIG_MAPS}/{NAME}", f"{POLICIES}/{NAME}"}
    assert [api.created[0], api.created[3]] == [f"{PODS}/{NAME}", f"{SECRETS}/{NAME}"], (
        "a pod cannot start without its Secret, which comes after the network policy"
    )
    files = api.objects[f"{CONFIG_MAPS}/{NAME}"]
    assert base64.b64decode(files["binaryData"]["f0"]) == b"print()"
    assert base64.b64decode(files["binaryData"]["f1"]) == b"\xff\x00"
    assert json.loads(files["data"]["index.json"])[1] == {
        "path": "b", "source": "f1", "mode": "0755"
    }  # fmt: skip
    api.status(phase="Pending")
    again = await sandbox.prepare(CONFIG, FIRST)
    assert isinstance(again, SandboxPending) and len(api.created) == 4


async def test_a_class_with_hosts_gets_the_policy_of_cilium_before_the_pod_can_start(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    api.objects["/apis/cilium.io/v2"] = {"resources": [{"name": "ciliumnetworkpolicies"}]}
    await sandbox.prepare(opening(EgressRule(PORTS, host="example.com")), FIRST)
    policies = "/apis/cilium.io/v2/namespaces/team-a/ciliumnetworkpolicies"
    assert f"{policies}/{NAME}" in api.created
    assert api.created[-1] == f"{SECRETS}/{NAME}"


async def test_hosts_without_cilium_are_a_wrong_configuration_and_nothing_is_made(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    seen = await sandbox.prepare(opening(EgressRule(PORTS, host="example.com")), FIRST)
    assert isinstance(seen, SandboxPending) and seen.hopeless
    assert seen.reason is Reason.CONFIG_INVALID and "Cilium" in seen.message
    assert not api.created


async def test_a_service_that_is_missing_is_waited_for(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    config = opening(EgressRule(PORTS, service="db"))
    seen = await sandbox.prepare(config, FIRST)
    assert isinstance(seen, SandboxPending) and seen.reason is Reason.SERVICE_NOT_FOUND
    assert not api.created
    api.objects["/api/v1/namespaces/team-a/services/db"] = {"spec": {"selector": {"app": "db"}}}
    await sandbox.prepare(config, FIRST)
    (to, _) = api.objects[f"{POLICIES}/{NAME}"]["spec"]["egress"]
    assert to["to"][0]["podSelector"] == {"matchLabels": {"app": "db"}}


async def test_two_owners_at_once_make_one_pod_with_one_identity(
    api: PretendedApi, home: KubeSandboxes
) -> None:
    both = [home.of(TASK, epoch).prepare(CONFIG, FIRST) for epoch in (1, 2)]
    await asyncio.gather(*both)
    assert sorted(api.created) == sorted(set(api.created)) and len(api.created) == 4


async def test_a_half_made_sandbox_is_completed_by_the_next_owner(
    api: PretendedApi, home: KubeSandboxes, sandbox: KubeSandbox
) -> None:
    api.refuses[SECRETS] = ApiError(500, "InternalError", "etcd is away")
    with pytest.raises(JournalAway):
        await sandbox.prepare(CONFIG, FIRST)
    assert f"{PODS}/{NAME}" in api.objects and f"{SECRETS}/{NAME}" not in api.objects
    api.refuses.clear()
    api.status(phase="Pending")
    await home.of(TASK, epoch=4).prepare(CONFIG, FIRST)
    identity = api.identity()
    await home.of(TASK, epoch=5).prepare(CONFIG, FIRST)
    assert api.identity() == identity and len(api.created) == 4


async def test_a_half_made_pod_is_completed_although_the_ledger_of_the_one_before_it_is_known(
    api: PretendedApi, home: KubeSandboxes, sandbox: KubeSandbox
) -> None:
    api.refuses[SECRETS] = ApiError(500, "InternalError", "etcd is away")
    with pytest.raises(JournalAway):
        await sandbox.prepare(CONFIG, FIRST)
    api.refuses.clear()
    await sandbox.prepare(CONFIG, SandboxRef(1, "ledger-of-a-lost-pod", NAME))
    assert f"{SECRETS}/{NAME}" in api.objects, "so it starts, and shows another ledger"


async def test_no_pod_is_made_that_would_mount_the_secret_of_an_earlier_one(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await sandbox.prepare(CONFIG, FIRST)
    del api.objects[f"{PODS}/{NAME}"]  # and its parts are not collected yet
    seen = await sandbox.prepare(CONFIG, FIRST)
    assert isinstance(seen, SandboxPending) and "still being removed" in seen.message
    assert f"{PODS}/{NAME}" not in api.objects


async def test_a_pod_does_not_start_with_a_network_policy_that_is_being_removed(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await sandbox.prepare(CONFIG, FIRST)
    for path in (f"{PODS}/{NAME}", f"{SECRETS}/{NAME}"):
        del api.objects[path]
    seen = await sandbox.prepare(CONFIG, FIRST)
    assert isinstance(seen, SandboxPending) and "still being removed" in seen.message
    assert f"{SECRETS}/{NAME}" not in api.objects, "so the new pod waits"
    for path in (f"{POLICIES}/{NAME}", f"{CONFIG_MAPS}/{NAME}"):
        del api.objects[path]
    await sandbox.prepare(CONFIG, FIRST)
    owners = {
        o["metadata"]["ownerReferences"][0]["uid"]
        for path, o in api.objects.items()
        if path.endswith(NAME) and not path.startswith(PODS)
    }
    assert owners == {api.objects[f"{PODS}/{NAME}"]["metadata"]["uid"]}
    assert f"{SECRETS}/{NAME}" in api.objects


async def test_a_missing_pod_with_a_known_ledger_is_gone(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    seen = await sandbox.prepare(CONFIG, SandboxRef(1, "ledger-1", NAME))
    assert isinstance(seen, SandboxGone) and api.created == []


async def test_an_evicted_pod_is_gone(api: PretendedApi, sandbox: KubeSandbox) -> None:
    await sandbox.prepare(CONFIG, FIRST)
    api.status(phase="Failed", reason="Evicted", message="disk")
    seen = await sandbox.prepare(CONFIG, FIRST)
    assert isinstance(seen, SandboxGone) and "Evicted" in seen.message


async def test_trouble_of_the_pod_is_passed_on(api: PretendedApi, sandbox: KubeSandbox) -> None:
    await sandbox.prepare(CONFIG, FIRST)
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    status = [{"name": "shell", "image": "python:3.12", "state": waiting}]
    scheduled = [{"type": "PodScheduled", "status": "True"}]
    api.status(phase="Pending", conditions=scheduled, containerStatuses=status)
    seen = await sandbox.prepare(CONFIG, FIRST)
    assert isinstance(seen, SandboxPending)
    assert (seen.reason, seen.hopeless) == (Reason.IMAGE_UNAVAILABLE, True)


async def test_a_pod_of_somebody_else_is_left_alone(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    api.objects[f"{PODS}/{NAME}"] = {"metadata": {"name": NAME, "uid": "x"}}
    seen = await sandbox.prepare(CONFIG, FIRST)
    assert isinstance(seen, SandboxPending) and seen.hopeless and "somebody else" in seen.message


@pytest.mark.parametrize(("gone", "words"), [("map", "no ConfigMap 'more'"), ("key", "no key 'k'")])
async def test_a_start_file_that_is_missing_is_named(
    api: PretendedApi, sandbox: KubeSandbox, gone: str, words: str
) -> None:
    if gone == "map":
        del api.objects[f"{CONFIG_MAPS}/more"]
    else:
        api.objects[f"{CONFIG_MAPS}/more"]["binaryData"] = {}
    seen = await sandbox.prepare(CONFIG, FIRST)
    assert isinstance(seen, SandboxPending) and api.created == []
    assert (seen.reason, seen.hopeless) == (Reason.CONFIG_MAP_NOT_FOUND, True)
    assert words in seen.message


@pytest.mark.parametrize(
    ("error", "reason", "hopeless"),
    [
        (ApiError(422, "Invalid", "spec.x: no"), Reason.SANDBOX_FAILED, True),
        (ApiError(403, "Forbidden", 'RuntimeClass "x" not found'), Reason.SANDBOX_FAILED, True),
        (ApiError(403, "Forbidden", "exceeded quota: q"), Reason.SANDBOX_UNSCHEDULABLE, False),
    ],
)
async def test_what_the_api_server_refuses_is_said(
    api: PretendedApi, sandbox: KubeSandbox, error: ApiError, reason: Reason, hopeless: bool
) -> None:
    api.refuses[PODS] = error
    seen = await sandbox.prepare(CONFIG, FIRST)
    assert isinstance(seen, SandboxPending)
    assert (seen.reason, seen.hopeless) == (reason, hopeless)
    assert error.message in seen.message


async def test_a_namespace_that_takes_no_root_is_told_how_to_take_it(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    api.refuses[PODS] = ApiError(403, "Forbidden", 'violates PodSecurity "restricted:latest"')
    seen = await sandbox.prepare(CONFIG, FIRST)
    assert isinstance(seen, SandboxPending)
    assert "pod-security.kubernetes.io/enforce=baseline" in seen.message
    assert "allowRoot" in seen.message


@pytest.mark.parametrize(
    "error", [ApiUnreachable("no route"), ApiError(503, "ServiceUnavailable", "later")]
)
async def test_an_api_server_that_is_away_is_the_journals_error(
    api: PretendedApi, sandbox: KubeSandbox, error: Exception
) -> None:
    api.fails = error
    with pytest.raises(JournalAway):
        await sandbox.prepare(CONFIG, FIRST)
    with pytest.raises(JournalAway):
        await sandbox.remove()


async def test_remove_takes_all_generations_and_nothing_else(
    api: PretendedApi, sandbox: KubeSandbox, home: KubeSandboxes
) -> None:
    other = TaskRef("team-a", "other", "ffffffff-5555-4444-8888-121212121212")
    for task, generation in ((TASK, 1), (TASK, 2), (other, 1)):
        await home.of(task, 1).prepare(CONFIG, SandboxRef(generation))
    await sandbox.remove()
    left = {o["metadata"].get("labels", {}).get(names.LABEL_TASK_UID) for o in api.objects.values()}
    assert left == {other.uid, None}
    assert f"{CONFIG_MAPS}/more" in api.objects


async def test_nothing_is_asked_of_a_sandbox_that_was_never_ready(sandbox: KubeSandbox) -> None:
    with pytest.raises(SandboxAway):
        await sandbox.run(ORDER)


# --- with a server that answers ---


class Cluster:
    """A pretended API server whose one pod is a real server process with a scripted runner."""

    def __init__(self, api: PretendedApi, server: ServerProcess) -> None:
        self.api = api
        self.server = server
        self.home = KubeSandboxes(api, SETTINGS, port=server.port)
        self.sandbox = self.home.of(TASK, epoch=3)
        self.runner = ScriptedRunner(server)

    async def up(self) -> None:
        await self.sandbox.prepare(CONFIG, FIRST)
        ours = self.server.identity
        secret = {"token": ours.token, "tls.crt": ours.certificate, "tls.key": ours.key}
        self.api.objects[f"{SECRETS}/{NAME}"]["data"] = {
            name: base64.b64encode(value.encode()).decode() for name, value in secret.items()
        }
        self.api.ready()
        await self.runner.join()


@pytest.fixture
async def cluster(api: PretendedApi, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running_server(tmp_path) as (server, _):
        cluster = Cluster(api, server)
        await cluster.up()
        yield cluster
        await cluster.runner.leave()
        await cluster.home.close()


async def ready(cluster: Cluster) -> SandboxRef:
    seen = await cluster.sandbox.prepare(CONFIG, FIRST)
    assert isinstance(seen, SandboxReady)
    return seen.sandbox


async def test_ready_names_the_ledger_and_has_raised_the_epoch(cluster: Cluster) -> None:
    ref = await ready(cluster)
    assert (ref.generation, ref.pod) == (1, NAME) and len(ref.ledger) == 32
    assert await cluster.sandbox.prepare(CONFIG, ref) == SandboxReady(ref)
    older = cluster.home.of(TASK, epoch=2)
    with pytest.raises(SandboxRefused) as stale:
        await older.prepare(CONFIG, ref)
    assert stale.value.code == "stale_epoch"


async def test_another_ledger_than_the_known_one_is_gone(cluster: Cluster) -> None:
    seen = await cluster.sandbox.prepare(CONFIG, SandboxRef(1, "before", NAME))
    assert isinstance(seen, SandboxGone) and "replaced" in seen.message


async def test_a_lost_secret_is_said_to_be_lost(cluster: Cluster) -> None:
    del cluster.api.objects[f"{SECRETS}/{NAME}"]
    seen = await cluster.sandbox.prepare(CONFIG, FIRST)
    assert isinstance(seen, SandboxPending) and seen.hopeless and "Secret" in seen.message


@pytest.mark.parametrize(
    ("part", "text"), [("tls.crt", "no certificate"), ("token", "two\nlines"), ("token", "\0")]
)
async def test_a_damaged_secret_is_said_to_be_damaged(
    cluster: Cluster, part: str, text: str
) -> None:
    data = cluster.api.objects[f"{SECRETS}/{NAME}"]["data"]
    assert part in data
    data[part] = base64.b64encode(text.encode()).decode()
    seen = await cluster.sandbox.prepare(CONFIG, FIRST)
    assert isinstance(seen, SandboxPending) and seen.hopeless and "damaged" in seen.message


async def test_a_ready_pod_that_does_not_answer_is_away(cluster: Cluster) -> None:
    cluster.server.kill()
    with pytest.raises(SandboxAway):
        await cluster.sandbox.prepare(CONFIG, FIRST)


async def test_the_sandbox_says_what_it_found_out_of_its_network(cluster: Cluster) -> None:
    await ready(cluster)
    found = await cluster.sandbox.network()
    assert found.enforcement is Enforcement.UNKNOWN and "Nothing was tried" in found.message


async def test_run_waits_for_the_end(cluster: Cluster) -> None:
    await ready(cluster)
    running = asyncio.create_task(cluster.sandbox.run(ORDER))
    await cluster.runner.was_given(ORDER.key)
    cluster.runner.finish(ORDER.key, "done")
    receipt = await running
    assert (receipt.outcome, receipt.content) == ("Ok", "done")
    assert await cluster.sandbox.run(ORDER) == receipt
    assert cluster.runner.runs == [ORDER.key]


async def test_run_looks_at_the_pod_when_the_runner_is_gone(cluster: Cluster) -> None:
    cluster.home.wait_s = 0.05
    await ready(cluster)
    running = asyncio.create_task(cluster.sandbox.run(ORDER))
    await cluster.runner.was_given(ORDER.key)
    await cluster.runner.leave()
    with pytest.raises(SandboxAway, match="not connected"):
        await running
    newer = ScriptedRunner(cluster.server, "shell-2")
    await newer.join()
    assert (await cluster.sandbox.run(ORDER)).outcome == "Unknown"
    await newer.leave()


async def test_interrupt_tells_how_the_call_ended(cluster: Cluster) -> None:
    await ready(cluster)
    assert await cluster.sandbox.interrupt(replace(ORDER, key=f"{ORDER.key}/r1")) is None
    running = asyncio.create_task(cluster.sandbox.run(ORDER))
    await cluster.runner.was_given(ORDER.key)
    stopping = asyncio.create_task(cluster.sandbox.interrupt(ORDER))
    await cluster.runner.was_told(Cancel(ORDER.key))
    cluster.runner.finish(ORDER.key, "half", Outcome.KILLED)
    receipt = await stopping
    assert receipt and receipt.outcome == "Killed" and await running == receipt


async def test_interrupt_of_a_call_that_will_not_end_is_unknown(cluster: Cluster) -> None:
    cluster.home.interrupt_s = 0.1
    await ready(cluster)
    running = asyncio.create_task(cluster.sandbox.run(ORDER))
    await cluster.runner.was_given(ORDER.key)
    receipt = await cluster.sandbox.interrupt(ORDER)
    assert receipt and receipt.outcome == "Unknown"
    running.cancel()


# --- the identity ---


async def test_an_identity_is_read_back_as_it_was_made(
    api: PretendedApi, sandbox: KubeSandbox
) -> None:
    await sandbox.prepare(CONFIG, FIRST)
    made = api.identity()
    generation = sandbox._generation(FIRST)
    assert await Pods(api, SETTINGS).identity(generation) == made
