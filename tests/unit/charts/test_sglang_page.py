"""inference/sglang/README.md: its commands do what they say, its figures are those of the chart."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import yaml
from ratchet.edges.access import ADMIN_KEY

from tests.unit.charts.helm import CHARTS, REGISTRY, program, render
from tools import presets

ROOT = CHARTS.parent
PAGE = (ROOT / "inference/sglang/README.md").read_text()
VALUES = yaml.safe_load((CHARTS / "ratchet/values.yaml").read_text())["sglang"]


def shell_block(beginning: str) -> str:
    """The block of commands that begins so."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (found,) = [block for block in blocks if block.startswith(beginning)]
    return str(found)


def run(script: str, **variables: str) -> str:
    """Output of commands of the page, from the root of the checkout."""
    path = f"{Path(program()).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env={**os.environ, **variables, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_gives_the_objects_of_the_preset() -> None:
    command = shell_block("helm upgrade --install ").replace(
        "helm upgrade --install ", f"helm template --kube-version {presets.KUBE} "
    )
    assert "helm template" in command
    registry = REGISTRY.rpartition("=")[2]
    text = run(command, REGISTRY=registry, DIGEST=presets.DIGEST, COMMIT=presets.COMMIT)
    made = {(item["kind"], item["metadata"]["name"]) for item in yaml.safe_load_all(text) if item}
    golden = yaml.safe_load_all(presets.PRESETS[0].golden.read_text())
    wanted = {
        (item["kind"], item["metadata"]["name"])
        for item in golden
        if not item["apiVersion"].startswith("monitoring.coreos.com/")
    }
    jobs = {found for found in made | wanted if found[0] == "Job"}
    # The page names a tag beside the digest, which makes it another Job.
    assert made - jobs == wanted - jobs
    assert f"lmsysorg/sglang:v0.5.23@{presets.DIGEST}" in text


def test_the_key_is_made_where_the_presets_look_for_it() -> None:
    script = f'kubectl() {{ echo "$@"; }}\n{shell_block("KEY=")}'
    lines = run(script).splitlines()
    assert [line.split()[1] for line in lines] == ["ratchet-system", "team"]
    for preset in presets.PRESETS:
        secret = yaml.safe_load(preset.file.read_text())["endpoint"]["apiKeySecret"]
        for line in lines:
            assert f"secret generic {secret['name']} --from-literal={secret['key']}=" in line
            assert f"--from-literal={ADMIN_KEY}=" in line
    assert len({line.partition("--from-literal")[2] for line in lines}) == 1


def test_the_figures_are_those_of_the_chart() -> None:
    drain = VALUES["drain"]
    assert f"| `drain.settleSeconds` | {drain['settleSeconds']} |" in PAGE
    assert f"| `drain.graceSeconds` | {drain['graceSeconds']} |" in PAGE
    assert f"| `max-queued-requests` | {VALUES['maxQueuedRequests']} |" in PAGE
    objects = render(
        REGISTRY,
        "--set=sglang.enabled=true",
        "--set=sglang.model.name=a/b",
        "--set=sglang.model.licenceAccepted=a/b",
        f"--set=sglang.model.revision={presets.COMMIT}",
        f"--set=sglang.image.digest={presets.DIGEST}",
    )
    (server,) = [item for item in objects if item["metadata"]["name"] == "ratchet-sglang"
                 and item["kind"] == "Deployment"]  # fmt: skip
    (container,) = server["spec"]["template"]["spec"]["containers"]
    for name in ("startup", "readiness", "liveness"):
        probe = container[f"{name}Probe"]
        shown = (
            f"| {name} probe | `{probe['httpGet']['path']}`, "
            f"{probe['periodSeconds']} s x {probe['failureThreshold']}"
        )
        assert shown in PAGE


def test_the_estimates_follow_from_the_size_of_a_token() -> None:
    token = 88 * 8 * 128 * 2 * 2
    assert token == 352 * 1024
    rows = [row.split("|")[2:-1] for row in PAGE.splitlines() if row.startswith("| cache of all")]
    tokens = [row.split("|")[2:-1] for row in PAGE.splitlines() if row.startswith("| tokens |")]
    for gib, shown in zip(rows[0], tokens[0], strict=True):
        size = int(gib.strip().removesuffix(" GiB")) * 2**30
        number = int(shown.strip().replace(",", ""))
        assert abs(size / token - number) < 0.01 * number
    preset = yaml.safe_load(presets.PRESETS[0].file.read_text())
    assert preset["endpoint"]["capacity"]["tokens"] <= 0.9 * 436_000
