"""docs/workspace.md: its commands are run as they stand, on a cluster in memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ratchet.api.crd import crd
from ratchet.api.task import AgentTask
from ratchet.build.files import BYTES_MAX
from ratchet.build.git import KEYS, needed_keys
from ratchet.core.conditions import Reason
from ratchet.core.config import GitSource
from ratchet.edges import patches
from ratchet_sandbox import protocol
from ratchet_sandbox.runner.prepare import prepare

from tests.unit.cli.test_getting import NAMESPACE, Scene
from tests.unit.docs.test_docs import ROOT, blocks
from tests.unit.sandbox.gitserver import ENVIRONMENT, commit, git, make_repository
from tests.unit.sandbox.runners import make_config

PAGE = (ROOT / "docs/workspace.md").read_text()
URL = "https://git.example.com/team/project.git"
RATCHET = """#!{python}
import json, sys
from contextlib import asynccontextmanager
from ratchet.cli.cluster import Cluster
from ratchet.cli.main import main
from tests.unit.edges.test_patches import MemoryApi

api = MemoryApi()
api.server.objects = json.load(open({objects!r}))

@asynccontextmanager
async def connect(where):
    yield Cluster(api, where, where.namespace)

sys.exit(main(connect=connect))
"""
KUBECTL = """#!{python}
import json, sys
objects = json.load(open({objects!r}))
words = sys.argv[1:]
assert words[words.index("-n") + 1] == {namespace!r}, words
how = words[words.index("-o") + 1]
if how == "json":
    kinds = words[1].split(",")
    kept = [o | {{"metadata": o["metadata"] | {{"namespace": {namespace!r}}}}}
            for p, o in objects.items() if p.split("/")[-2] in kinds]
    kept = [{{"apiVersion": "v1", "kind": "ConfigMap", **o}} if "data" in o else o for o in kept]
    json.dump({{"items": kept}}, sys.stdout)
else:
    (found,) = (o for p, o in objects.items() if p.endswith("agenttasks/" + words[2]))
    for name in how.removeprefix("jsonpath={{.").removesuffix("}}").split("."):
        found = found[name]
    print(found, end="")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A task that began with a clone and made a large patch, and programs that know of it."""
    served = tmp_path / "served"
    served.mkdir()
    bare = make_repository(served)
    commit(bare, {"src/a.py": b"print(1)\n", "image.bin": bytes(range(256))})
    scene = Scene(make_config(tmp_path / "pod"))
    prepare_clone(scene, bare)
    (scene.runner.workspace / "src/new.py").write_text("new\n")
    (scene.runner.workspace / "noise.bin").write_bytes(os.urandom(150_000))
    scene.start(GitSource(URL), files=())
    patch = scene.end()
    assert patch and patch.parts
    result = {"baseCommit": patch.base, "patchSha256": patch.sha256}
    task = next(o for p, o in scene.api.server.objects.items() if "/agenttasks/" in p)
    task["status"]["result"] = result
    objects = tmp_path / "objects.json"
    objects.write_text(json.dumps(scene.api.server.objects))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("ratchet", RATCHET), ("kubectl", KUBECTL)):
        values = {"python": sys.executable, "objects": str(objects), "namespace": NAMESPACE}
        (programs / name).write_text(text.format(**values))
        (programs / name).chmod(0o755)
    return tmp_path


def prepare_clone(scene: Scene, bare: Path) -> None:
    """What the two init containers do."""
    config = scene.runner
    config.clone.parent.mkdir(parents=True)
    git(bare.parent, "clone", "--quiet", "--bare", str(bare), str(config.clone))
    git(config.clone, "update-ref", "refs/ratchet/upstream", "HEAD")
    for name in ("files", "bundled"):
        (config.runtime.parent / name).mkdir()
    parent = config.runtime.parent
    prepare(
        config, bundled=parent / "bundled", start_files=parent / "files", task_uid="u", cloned=True
    )


def run(folder: Path, block: str) -> str:
    environment = {
        **ENVIRONMENT,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "GIT_CONFIG_COUNT": "3",
        "GIT_CONFIG_KEY_2": f"url.{folder / 'served' / 'x.git'}.insteadOf",
        "GIT_CONFIG_VALUE_2": URL,
        "GIT_CONFIG_KEY_1": "advice.detachedHead", "GIT_CONFIG_VALUE_1": "false",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block], cwd=folder, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_of_commands_runs_and_does_what_the_page_says(folder: Path) -> None:
    apply, get, verify = blocks(PAGE, "sh")

    run(folder, apply)
    assert (folder / "work/src/new.py").read_text() == "new\n"
    noise = (folder / "pod/workspace/noise.bin").read_bytes()
    assert (folder / "work/noise.bin").read_bytes() == noise
    run(folder, get)
    assert (folder / "new.py").read_text() == "new\n"
    told = run(folder, verify)
    assert "not given" not in told, told


def test_every_field_that_the_page_names_is_one_of_the_status() -> None:
    (version,) = crd(AgentTask)["spec"]["versions"]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    for row in re.findall(r"^\| (`status\.result\.[^|]+) \|", PAGE, re.MULTILINE):
        for name in re.findall(r"`(?:status\.result\.)?(\w+)`", row):
            assert name in status["result"]["properties"], name


def test_the_secret_has_keys_that_are_mounted() -> None:
    secret = next(
        item for block in blocks(PAGE, "yaml") for item in yaml.safe_load_all(block)
        if item["kind"] == "Secret"
    )  # fmt: skip
    assert set(secret["stringData"]) <= set(KEYS)
    for group in needed_keys(GitSource(URL)):
        assert not set(secret["stringData"]).isdisjoint(group)
    for key in KEYS:
        assert f"`{key}`" in PAGE


def test_the_numbers_and_reasons_are_those_of_the_code() -> None:
    assert patches.INLINE_MAX == 100 * 1024 and "100 KiB" in PAGE
    assert protocol.PATCH_LIMIT == 5 * 1024 * 1024 and "5 MiB" in PAGE
    assert BYTES_MAX == 1_000_000 and "1 MB" in PAGE
    for reason in (Reason.GIT_CLONE_FAILED, Reason.SECRET_NOT_FOUND, Reason.RESULT_LOST):
        assert str(reason) in PAGE
