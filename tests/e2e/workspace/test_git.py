"""A repository goes in with a credential that the model never sees, and a patch comes out."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sglang_fake import FakeSGLang

from tests.cluster import Cluster
from tests.e2e.kubectl import Kubectl
from tests.e2e.operator_process import REPO, OperatorProcess
from tests.e2e.runtimes.conftest import GVISOR, Runtime
from tests.e2e.scene import Scene
from tests.e2e.tasks.test_reliability import FINISH, bash, script
from tests.unit.sandbox.gitserver import GitServer, commit, git, make_repository, serve

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

USER, WORD = "robot", "s3cret-w0rd"
CHANGES = r"""
set -e
echo two > kept.txt; rm gone.txt; chmod +x run.sh; ln -s kept.txt link
printf 'odd\n' > "$(printf 'caf\351.txt')"
head -c 1500000 /dev/urandom > noise.bin; sha256sum < noise.bin
"""
LOOK = r"""
w=$(printf s3cret-; printf w0rd)
cat .git/config; env; ls /ratchet; mount | grep ratchet
echo "found: [$(grep -rslF "$w" /workspace /ratchet /tmp /proc/[0-9]*/environ)]"
"""
FILES: dict[str, bytes | None] = {
    "kept.txt": b"one\n", "gone.txt": b"gone\n", "run.sh": b"echo\n", "image.bin": bytes(range(256)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ratchet:
    """The command, as a user runs it."""

    kubectl: Kubectl

    async def __call__(self, *words: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        """Exit code, output, and what it says."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ratchet.cli", *words, cwd=REPO,
            env={
                **os.environ, "PYTHONPATH": str(REPO / "operator"), "KUBECONFIG": self.kubectl.kubeconfig,
                "PATH": f"{self.kubectl.path}:{os.environ['PATH']}",
            },
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate(stdin)
        return process.returncode or 0, out, err.decode()

    async def diff(self, task: str) -> bytes:
        code, out, err = await self("diff", task, "-n", self.kubectl.namespace)
        assert code == 0, err
        return out


@pytest.fixture
def server(cluster: Cluster, tmp_path: Path) -> Iterator[GitServer]:
    """A repository on an address of this machine that pods reach, behind a password."""
    root = tmp_path / "served"
    root.mkdir()
    commit(make_repository(root), FILES)
    with serve(GitServer(root, USER, WORD, host=cluster.host_ip)) as server:
        yield server


def secret(password: str) -> dict[str, Any]:
    data = {"username": USER, "password": password}
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "git-cred"}, "stringData": data
    }  # fmt: skip


async def prepare(scene: Scene, model_url: str, server: GitServer, **shape: Any) -> dict[str, Any]:
    """The defaults, with a class that lets the clone out; the task's spec.git."""
    await scene.defaults(model_url)
    rule = {"cidr": f"{server.host}/32", "ports": [{"port": server.port}]}
    shape = {"image": scene.shell_image, "egress": [rule], **shape}
    await scene.kubectl.apply(scene.object("SandboxClass", "default", **shape))
    return {"url": server.url("x.git"), "secretRef": {"name": "git-cred"}}


async def results_of(scene: Scene, task: str, turn: int) -> str:
    """The result of the only call of a turn, once it is recorded."""
    uid = (await scene.kubectl.get("agenttask", task))["metadata"]["uid"]
    name = f"{task}-{uid[:8]}-t{turn}"
    await scene.kubectl.wait_until("agenttask", task, lambda t: t["status"].get("turns", 0) >= turn)
    found = await scene.kubectl.wait_until(
        "agentturn", name, lambda t: bool((t.get("status") or {}).get("results"))
    )
    return str(found["status"]["results"][0]["content"])


def tree(folder: Path) -> dict[bytes, tuple[str, bool]]:
    """Digest or target, and whether it may be executed, of each file, by name."""
    found = {}
    for path in folder.iterdir():
        if path.name == ".git":
            continue
        link = path.is_symlink()
        what = str(path.readlink()) if link else hashlib.sha256(path.read_bytes()).hexdigest()
        found[os.fsencode(path.name)] = what, not link and os.access(path, os.X_OK)
    return found


def applied(
    server: GitServer, base: str, patch: bytes, folder: Path
) -> dict[bytes, tuple[str, bool]]:
    """What the cloned commit and a patch make together."""
    folder.mkdir()
    (folder / "patch").write_bytes(patch)
    git(folder, "clone", "--quiet", str(server.root / "x.git"), "clone")
    git(folder / "clone", "checkout", "--quiet", base)
    git(folder / "clone", "apply", "--binary", "--index", str(folder / "patch"))
    return tree(folder / "clone")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_a_clone_goes_in_and_the_whole_change_comes_out(
    scene: Scene, operator: OperatorProcess, server: GitServer, tmp_path: Path
) -> None:
    ratchet = Ratchet(scene.kubectl)
    turns = script(bash(CHANGES), bash(LOOK), bash("sleep 20"), FINISH)
    async with FakeSGLang(turns) as fake:
        source = await prepare(scene, fake.base_url, server)
        await scene.start("clone", git=source)
        waits = await scene.kubectl.wait_until(
            "agenttask", "clone", lambda t: t["status"].get("reason") == "SecretNotFound"
        )
        assert "Secret git-cred does not exist" in waits["status"]["message"]
        await scene.kubectl.apply(secret(WORD))

        noise = (await results_of(scene, "clone", 1)).split()[0]
        looked = await results_of(scene, "clone", 2)
        running = await ratchet.diff("clone")
        task = await scene.ended("clone")
    assert task["status"]["phase"] == "Succeeded", task["status"]
    pod = task["status"]["sandbox"]["pod"]
    result = task["status"]["result"]
    tip = git(server.root / "x.git", "rev-parse", "trunk")
    assert result["baseCommit"] == result["upstreamCommit"] == tip

    # The credential was used, and is nowhere.
    assert server.sent[-1] == f"{USER}:{WORD}"
    assert "found: []" in looked and WORD not in looked and "/ratchet/git" not in looked, looked
    assert WORD not in json.dumps([task, *await scene.turns(task)])
    assert pod and WORD not in operator.log.read_text()

    # The patch is too large for the record, and whole.
    (end,) = [r for r in await scene.turns(task) if r["spec"]["kind"] == "End"]
    assert (
        not end["spec"]["end"]["patch"].get("inline")
        and len(end["spec"]["end"]["patch"]["parts"]) > 1
    )
    patch = await ratchet.diff("clone")
    assert (len(patch), sha256(patch)) == (result["patchBytes"], result["patchSha256"])
    expected = {
        b"kept.txt": (sha256(b"two\n"), False), b"run.sh": (sha256(b"echo\n"), True),
        b"image.bin": (sha256(bytes(range(256))), False), b"link": ("kept.txt", False),
        b"caf\xe9.txt": (sha256(b"odd\n"), False), b"noise.bin": (noise, False),
    }  # fmt: skip
    assert applied(server, tip, patch, tmp_path / "ended") == expected
    assert applied(server, tip, running, tmp_path / "running") == expected

    # A file of it, and the check of all of it.
    code, data, err = await ratchet("files", "get", "clone", "noise.bin", "-n", scene.namespace)
    assert (code, sha256(data)) == (0, noise), err
    uid = task["metadata"]["uid"]
    printed = await scene.kubectl.run(
        "get", "agentturns,configmaps", "-l", f"ratchet.run/task-uid={uid}", "-o", "json"
    )
    code, told, err = await ratchet("verify", "-", stdin=printed.encode())
    assert code == 0 and b" valid. " in told and b"not given" not in told, err + told.decode()
    torn = json.loads(printed)
    for item in torn["items"]:
        if item["kind"] == "ConfigMap" and "patch" in (item.get("binaryData") or {}):
            item["binaryData"]["patch"] = base64.b64encode(b"torn").decode()
    code, told, _ = await ratchet("verify", "-", stdin=json.dumps(torn).encode())
    assert code == 1 and b"The patch of" in told


async def test_a_clone_on_a_claim_is_made_once_and_outlives_its_pod(
    scene: Scene,
    operator: OperatorProcess,
    server: GitServer,
    volume_claim: dict[str, str],
    tmp_path: Path,
) -> None:
    turns = script(bash("echo two > kept.txt"), bash("sleep 20"), bash("git status -s"), FINISH)
    async with FakeSGLang(turns) as fake:
        workspace = {"volumeClaim": volume_claim}
        source = await prepare(scene, fake.base_url, server, workspace=workspace)
        await scene.kubectl.apply(secret(WORD))
        await scene.start("claimed", git=source)
        await results_of(scene, "claimed", 1)
        cloned = len(server.sent)
        pod = (await scene.kubectl.get("agenttask", "claimed"))["status"]["sandbox"]["pod"]
        await scene.kubectl.run("delete", "pod", pod, "--wait=false")
        looked = await results_of(scene, "claimed", 3)
        task = await scene.ended("claimed")
    assert task["status"]["phase"] == "Succeeded", task["status"]
    assert task["status"]["sandbox"]["generation"] == 1
    assert looked.startswith(" M kept.txt\n"), looked
    assert len(server.sent) == cloned > 0
    await only_kept_txt_is_changed(scene, server, "claimed", tmp_path)


@pytest.mark.parametrize("runtime", [GVISOR], indirect=True, ids=["gvisor"])
async def test_a_clone_goes_in_and_its_change_comes_out_under_gvisor(
    scene: Scene, operator: OperatorProcess, server: GitServer, runtime: Runtime, tmp_path: Path
) -> None:
    async with FakeSGLang(script(bash("echo two > kept.txt"), FINISH)) as fake:
        source = await prepare(scene, fake.base_url, server, runtimeClassName=runtime.runtime_class)
        await scene.kubectl.apply(secret(WORD))
        await scene.start("gvisor", git=source)
        task = await scene.ended("gvisor")
    assert task["status"]["phase"] == "Succeeded", task["status"]
    await only_kept_txt_is_changed(scene, server, "gvisor", tmp_path)


async def only_kept_txt_is_changed(
    scene: Scene, server: GitServer, task: str, folder: Path
) -> None:
    """The patch of a task, applied to what it cloned, changes one file and nothing else."""
    tip = git(server.root / "x.git", "rev-parse", "trunk")
    patch = await Ratchet(scene.kubectl).diff(task)
    contents = {name.encode(): data for name, data in FILES.items() if data is not None}
    contents[b"kept.txt"] = b"two\n"
    found = applied(server, tip, patch, folder / "ended")
    assert found == {name: (sha256(data), False) for name, data in contents.items()}


async def test_a_refused_credential_ends_the_task_and_says_what_to_do(
    scene: Scene, operator: OperatorProcess, server: GitServer
) -> None:
    async with FakeSGLang(script(FINISH)) as fake:
        source = await prepare(scene, fake.base_url, server)
        await scene.kubectl.apply(secret("wr0ng-w0rd"))
        await scene.start("refused", git=source)
        told = await scene.kubectl.wait_until(
            "agenttask", "refused", lambda t: t["status"].get("reason") == "GitCloneFailed"
        )
        task = await scene.ended("refused", within_s=180)
    for status in (told["status"], task["status"]):
        assert "the server refuses the credential" in status["message"], status
        assert "wr0ng-w0rd" not in json.dumps(status)
    assert (task["status"]["phase"], task["status"]["reason"]) == ("Failed", "GitCloneFailed")
