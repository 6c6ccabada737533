"""Every shape of journal, fresh from a real API server: kubectl prints it, `ratchet verify` takes it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest
from ratchet.cli.main import main

from tests.cluster import Cluster
from tests.contract.journal_homes import ClusterHome
from tests.e2e.journals.hands import exchange
from tests.e2e.journals.save import kubectl_of, printed
from tests.e2e.journals.shapes import SHAPES, played
from tests.e2e.journals.test_taken_over import other_words

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/journal.md").read_text()


@pytest.mark.parametrize("name", SHAPES)
async def test_what_kubectl_prints_of_it_is_valid(
    name: str,
    home: ClusterHome,
    cluster: Cluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await played(home, name)
    file = tmp_path / f"{name}.json"
    file.write_text(await printed(kubectl_of(cluster, home.namespace)))
    assert main(["verify", str(file)]) == 0, capsys.readouterr().out


async def test_the_commands_of_the_page_check_a_journal(
    home: ClusterHome, cluster: Cluster
) -> None:
    play = await played(home, "plain")
    commands = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    checks = "".join(text for text in commands if "kubectl" in text)
    assert checks.count("ratchet verify") == 2
    code, out = await bash(checks, cluster, home.namespace)
    assert (code, out.count(f"(uid {play.task.uid}): valid. 2 turns")) == (0, 2), out
    await exchange(home, play.task, 1, other_words)
    code, out = await bash(checks, cluster, home.namespace)
    assert (code, out.count("was edited: spec.digest")) == (1, 2), out


async def bash(script: str, cluster: Cluster, namespace: str) -> tuple[int, str]:
    """Run what a page shows, where kubectl means this namespace and the package is not installed."""
    aliases = (
        f'kubectl() {{ command kubectl -n {namespace} "$@"; }}\n'
        f'ratchet() {{ {sys.executable} -m ratchet.cli "$@"; }}\n'
    )
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", aliases + script,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            **os.environ,
            "KUBECONFIG": cluster.kubeconfig,
            "PATH": f"{cluster.path}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "operator"),
        },
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()
