"""`ratchet diff` and `ratchet files get`: from the record of the end, or from a running sandbox."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ratchet.api import names
from ratchet.cli.cluster import Cluster, Where
from ratchet.cli.main import main
from ratchet.core.config import Config, File, GitSource, ModelConfig, SandboxConfig
from ratchet.core.records import End, EndOutcome, Patch, Start
from ratchet.edges import kube, patches, wire
from ratchet.edges.kube import ApiError
from ratchet.edges.sandbox import Diff
from ratchet.ports import TaskRef
from ratchet_sandbox import protocol
from ratchet_sandbox.runner import workspace
from ratchet_sandbox.runner.config import Config as Runner
from ratchet_sandbox.runner.processes import Children

from tests.unit.edges.test_patches import MemoryApi
from tests.unit.sandbox.gitserver import git
from tests.unit.sandbox.runners import make_base, make_config
from tests.unit.sandbox.servers import UID, ScriptedRunner, running_server

NAMESPACE = "team-a"
TASK = TaskRef(NAMESPACE, "fix-it", UID)
START = {"src/a.py": "print(1)\n", "data.txt": "one\ntwo\n", "gone.txt": "gone\n"}
Capture = pytest.CaptureFixture[bytes]


@dataclass
class Scene:
    """A cluster in memory, and the folders of a sandbox that is prepared for real."""

    runner: Runner
    api: MemoryApi = field(default_factory=MemoryApi)
    head: str = "a" * 64
    """Digest of the last record."""

    def put(self, path: str, kind: str, name: str, **parts: Any) -> None:
        body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, **parts}
        self.api.server.put(path, body, UID)

    def task(self, **status: Any) -> None:
        path = kube.task(NAMESPACE, TASK.name)
        self.put(path, names.TASK_KIND, TASK.name, spec={"goal": "g"}, status=status)

    def record(self, record: Start | End) -> None:
        body = wire.to_object(TASK, record)
        self.head = body["spec"]["digest"]
        self.api.server.put(kube.turn(NAMESPACE, body["metadata"]["name"]), body)

    def start(self, source: GitSource | None = None, files: tuple[File, ...] | None = None) -> None:
        given = tuple(File(path, text) for path, text in START.items()) if files is None else files
        model = ModelConfig("default", "http://m", "m")
        self.record(Start(Config("g", model, SandboxConfig("x"), files=given, git=source), 1))

    def diff(self) -> Diff:
        """What the sandbox's own code says that has changed."""

        async def ask() -> protocol.Patch:
            async with Children() as children:
                return await workspace.diff(self.runner, children, "1")

        found = asyncio.run(ask())
        return Diff(found.base, base64.b64decode(found.patch), found.sha256, found.upstream)

    def end(self, patch: Patch | None = None, *, none: bool = False) -> Patch | None:
        """End the task with what its workspace holds, as the operator does."""
        if patch is None and not none:
            patch = asyncio.run(patches.stored(self.api, TASK, self.diff()))
        self.record(End(1, 1, self.head, EndOutcome.SUCCEEDED, "Finished", "Done.", patch=patch))
        done = {"type": "Finished", "status": "True"}
        result = {"patchSha256": patch.sha256} if patch else {}
        self.task(phase="Succeeded", conditions=[done], result=result)
        return patch

    def ratchet(self, *words: str) -> int:
        return main([*words, "-n", NAMESPACE], connect=self._connect)

    @asynccontextmanager
    async def _connect(self, where: Where) -> AsyncIterator[Cluster]:
        yield Cluster(self.api, where, where.namespace)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    config = make_config(tmp_path / "pod")
    make_base(config, START)
    return Scene(config)


def change(scene: Scene, large: int = 0) -> Path:
    """Every kind of change that a workspace can see."""
    work = scene.runner.workspace
    (work / "data.txt").write_text("one\nTWO\n")
    (work / "gone.txt").unlink()
    (work / "src/a.py").chmod(0o755)
    (work / "image.bin").write_bytes(bytes(range(256)) * 8)
    (work / os.fsdecode(b"caf\xe9.txt")).write_text("not UTF-8 in its name\n")
    (work / "link").symlink_to("src/a.py")
    (work / "new dir").mkdir()
    (work / "new dir/[x]*.txt").write_text("odd\n")
    if large:
        (work / "noise.bin").write_bytes(os.urandom(large))
    return work


def tree(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Content, or target of a link, and whether it may be executed, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = os.fsencode(path.relative_to(folder)).decode("latin-1")
        if name.split("/")[0] in (".git", ".ratchet") or (path.is_dir() and not path.is_symlink()):
            continue
        link = path.is_symlink()
        content = os.fsencode(path.readlink()) if link else path.read_bytes()
        found[name] = content, not link and os.access(path, os.X_OK)
    return found


# --- of a task that has ended --------------------------------------------------------------------


@pytest.mark.parametrize("large", [0, 150_000, 2_000_000])
def test_the_printed_patch_makes_the_base_into_the_workspace(
    scene: Scene, large: int, tmp_path: Path, capfdbinary: Capture
) -> None:
    work = change(scene, large)
    patch = scene.end()
    assert patch and bool(patch.parts) == (large > 0)

    assert scene.ratchet("diff", "fix-it") == 0
    (tmp_path / "p").write_bytes(capfdbinary.readouterr().out)

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(scene.runner.base), str(clone))
    git(clone, "apply", "--binary", "--index", str(tmp_path / "p"))
    assert tree(clone) == tree(work)


def test_a_task_that_changed_nothing_has_an_empty_patch(scene: Scene, capfdbinary: Capture) -> None:
    scene.end()
    assert scene.ratchet("diff", "fix-it") == 0
    assert capfdbinary.readouterr().out == b""


def test_each_file_of_the_workspace_is_made_again(scene: Scene, capfdbinary: Capture) -> None:
    work = change(scene, 150_000)
    scene.start()
    scene.end()
    for path in ("data.txt", "src/a.py", "image.bin", "noise.bin", "new dir/[x]*.txt",
                 os.fsdecode(b"caf\xe9.txt"), "/workspace/data.txt", "./data.txt"):  # fmt: skip
        assert scene.ratchet("files", "get", "fix-it", path) == 0, path
        assert (
            capfdbinary.readouterr().out == (work / path.removeprefix("/workspace/")).read_bytes()
        ), path


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("gone.txt", "There is no file gone.txt"),
        ("never", "There is no file never"),
        ("link", "link is a symbolic link to src/a.py"),
        ("src", "src is a folder"),
        ("../etc/passwd", "is no file of the workspace"),
        ("/etc/passwd", "is no file of the workspace"),
        (".git/config", "is no file of the workspace"),
        ("", "is no file of the workspace"),
    ],
)
def test_what_is_no_file_is_told(scene: Scene, path: str, says: str, capfdbinary: Capture) -> None:
    change(scene)
    scene.start()
    scene.end()
    assert scene.ratchet("files", "get", "fix-it", path) == 2
    found = capfdbinary.readouterr()
    assert says in found.err.decode() and not found.out


def test_start_files_that_were_changed_since_are_not_taken_for_the_old_ones(
    scene: Scene, capfdbinary: Capture
) -> None:
    files = [File(path, text) for path, text in START.items() if path != "data.txt"]
    scene.start(files=(*files, File("data.txt", config_map="mine", key="k")))
    scene.end()
    assert scene.ratchet("files", "get", "fix-it", "data.txt") == 2
    assert "no ConfigMap 'mine'" in capfdbinary.readouterr().err.decode()
    body = {"metadata": {"name": "mine"}, "data": {"k": "one\nanother\n"}}
    scene.api.server.put(kube.core("configmaps", NAMESPACE, "mine"), body)
    assert scene.ratchet("files", "get", "fix-it", "data.txt") == 2
    assert "was changed since" in capfdbinary.readouterr().err.decode()
    body = {"metadata": {"name": "mine"}, "data": {"k": START["data.txt"]}}
    scene.api.server.put(kube.core("configmaps", NAMESPACE, "mine"), body)
    assert scene.ratchet("files", "get", "fix-it", "data.txt") == 0


def test_of_a_clone_what_the_task_made_is_told_and_how_to_get_the_rest(
    scene: Scene, capfdbinary: Capture
) -> None:
    change(scene)
    scene.start(GitSource("https://git.example.com/x.git"), files=())
    patch = scene.end()
    assert scene.ratchet("files", "get", "fix-it", "image.bin") == 0
    assert capfdbinary.readouterr().out == bytes(range(256)) * 8
    assert scene.ratchet("files", "get", "fix-it", "data.txt") == 2
    told = capfdbinary.readouterr().err.decode()
    assert (
        patch
        and f"git clone https://git.example.com/x.git work && git -C work checkout {patch.base}"
        in told
    )


# --- what is wrong -------------------------------------------------------------------------------


def told(scene: Scene, capfdbinary: Capture, code: int) -> str:
    assert scene.ratchet("diff", "fix-it") == code
    found = capfdbinary.readouterr()
    assert not found.out and found.err.startswith(b"ratchet diff: ") and found.err.count(b"\n") == 1
    return found.err.decode()


def test_a_task_that_is_not_there_is_named_with_its_namespace(
    scene: Scene, capfdbinary: Capture
) -> None:
    assert "no AgentTask fix-it in namespace team-a" in told(scene, capfdbinary, 2)


def test_what_one_may_not_read_is_said(scene: Scene, capfdbinary: Capture) -> None:
    scene.api.says = [ApiError(403, "Forbidden", "agenttasks is forbidden")]
    assert "You may not read AgentTask fix-it" in told(scene, capfdbinary, 2)


def test_a_task_that_ended_without_a_patch_says_why(scene: Scene, capfdbinary: Capture) -> None:
    scene.end(none=True)
    text = told(scene, capfdbinary, 2)
    assert "ended Succeeded (Finished) and left no patch: Done." in text


def test_a_patch_that_was_too_large_is_named_by_size_and_digest(
    scene: Scene, capfdbinary: Capture
) -> None:
    scene.end(Patch("b" * 40, "0" * 64, 9_000_000))
    text = told(scene, capfdbinary, 2)
    assert "9000000 bytes" in text and "0" * 64 in text and "too large to be kept" in text


def test_a_stored_patch_that_was_changed_is_not_printed(scene: Scene, capfdbinary: Capture) -> None:
    change(scene, 150_000)
    patch = scene.end()
    assert patch
    path = kube.core("configmaps", NAMESPACE, patch.parts[0].name)
    other = base64.b64encode(bytes(patch.parts[0].size)).decode()
    scene.api.server.change(path, lambda found: found.update(binaryData={"patch": other}))
    assert "not of its own size and digest" in told(scene, capfdbinary, 1)
    scene.api.server.remove(path)
    assert f"{patch.parts[0].name}, which holds a part of it, is gone" in told(
        scene, capfdbinary, 1
    )


def test_a_record_that_was_edited_is_not_believed(scene: Scene, capfdbinary: Capture) -> None:
    change(scene)
    scene.end()
    path = kube.turn(NAMESPACE, names.turn_name(TASK.name, UID, 1))
    scene.api.server.change(path, lambda found: found["spec"]["end"].update(message="Edited."))
    assert "was edited" in told(scene, capfdbinary, 1)


def test_a_status_that_names_another_patch_is_told(scene: Scene, capfdbinary: Capture) -> None:
    scene.end()

    def another(found: dict[str, Any]) -> None:
        found["status"]["result"] = {"patchSha256": "f" * 64}

    scene.api.server.change(kube.task(NAMESPACE, TASK.name), another)
    assert "names another patch" in told(scene, capfdbinary, 1)


def test_without_a_cluster_the_sentence_says_where_one_was_sought(
    tmp_path: Path, capfdbinary: Capture
) -> None:
    missing = str(tmp_path / "none")
    assert main(["diff", "x", "--kubeconfig", missing]) == 2
    assert missing in capfdbinary.readouterr().err.decode()


# --- of a task that goes on ----------------------------------------------------------------------

KUBECTL = """#!{python}
import os, sys, time
assert sys.argv[1:] == {words!r}, sys.argv
print("Forwarding from 127.0.0.1:{port} -> 8443", flush=True)
print(os.getpid(), file=open({pid!r}, "w"))
time.sleep(60)
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that comes first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def alive(file: str) -> bool:
    """Whether there is a process with the pid in a file."""
    return Path("/proc", Path(file).read_text().strip()).exists()


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def running(scene: Scene, secret: dict[str, str] | None = None) -> str:
    pod = names.sandbox_name(TASK.name, UID, 1)
    scene.task(phase="Running", sandbox={"pod": pod, "generation": 1})
    if secret is not None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in secret.items()}
        path = kube.core("secrets", NAMESPACE, pod)
        scene.api.server.put(path, {"metadata": {"name": pod}, "data": data})
    return pod


async def test_a_running_sandbox_is_asked_through_a_port_of_kubectl(
    scene: Scene, tmp_path: Path, programs: Path, capfdbinary: Capture
) -> None:
    async with running_server(tmp_path) as (server, _):
        identity = server.identity
        pod = running(scene, {
            "tls.crt": identity.certificate, "tls.key": identity.key, "token": identity.token,
        })  # fmt: skip
        words = ["--context=here", "--namespace=team-a", "port-forward",
                 f"pod/{pod}", ":8443", "--address=127.0.0.1"]  # fmt: skip
        pid = str(tmp_path / "pid")
        text = KUBECTL.format(python=sys.executable, words=words, port=server.port, pid=pid)
        program(programs, "kubectl", text)
        runner = ScriptedRunner(server)
        await runner.join()

        asked = asyncio.create_task(
            asyncio.to_thread(scene.ratchet, "diff", "fix-it", "--context", "here")
        )
        await runner.was_told(protocol.Diff("1"))
        runner.say(protocol.Patch("1", "a" * 40, base64.b64encode(b"\xffdiff").decode(), 5, "x"))
        assert await asked == 0
        assert capfdbinary.readouterr().out == b"\xffdiff"

        asked = asyncio.create_task(
            asyncio.to_thread(scene.ratchet, "files", "get", "fix-it", "a.py", "--context", "here")
        )
        await runner.was_told(protocol.Read("2", "a.py"))
        runner.say(protocol.Error("2", "not_found", "there is no such file"))
        assert await asked == 2
        assert "there is no such file" in capfdbinary.readouterr().err.decode()
        assert not alive(pid)


def test_what_a_running_sandbox_takes_is_said(
    scene: Scene, programs: Path, capfdbinary: Capture
) -> None:
    running(scene, {"tls.crt": "c", "tls.key": "k", "token": "t"})
    refusal = 'error: pods "x" is forbidden: cannot create resource pods/portforward'
    program(programs, "kubectl", f"#!/bin/sh\necho '{refusal}' >&2\nexit 1\n")
    text = told(scene, capfdbinary, 2)
    assert refusal in text and "right to create pods/portforward" in text


def test_a_secret_that_may_not_be_read_is_named(scene: Scene, capfdbinary: Capture) -> None:
    pod = running(scene, {})
    assert "is gone or damaged" in told(scene, capfdbinary, 2)
    scene.api.says = [None, None, ApiError(403, "Forbidden", "secrets is forbidden")]
    text = told(scene, capfdbinary, 2)
    assert f"You may not read Secret {pod}" in text and "wait for the end" in text


def test_a_task_that_has_not_begun_has_nothing(scene: Scene, capfdbinary: Capture) -> None:
    scene.task(phase="Pending")
    assert "is Pending and has no sandbox yet" in told(scene, capfdbinary, 2)


def test_a_task_that_failed_before_it_began_says_why(scene: Scene, capfdbinary: Capture) -> None:
    done = {"type": "Finished", "status": "True"}
    scene.task(phase="Failed", reason="ConfigInvalid", message="No.", conditions=[done])
    assert "without a record of its end: No." in told(scene, capfdbinary, 2)
