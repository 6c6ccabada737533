"""A patch that is too large to be kept: what is said of the work."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from ratchet.core.config import Config, SandboxConfig, VolumeClaim
from ratchet.ports import SandboxRefused
from ratchet_sandbox.protocol import Diff, Error

from tests.unit.sandbox.servers import running_server
from tests.unit.sandbox.test_sandboxes import CONFIG, CONFIG_MAPS, FIRST, Cluster, PretendedApi

CLAIMED = replace(CONFIG, sandbox=SandboxConfig("x", claim=VolumeClaim("1Gi")))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (CONFIG, "It is lost with the sandbox: put what is no result into .gitignore"),
        (CLAIMED, "It stays on PersistentVolumeClaim fix-it-"),
    ],
    ids=["emptied", "claimed"],
)
async def test_the_refusal_says_what_becomes_of_the_work(
    config: Config, says: str, tmp_path: Path
) -> None:
    async with running_server(tmp_path) as (server, _):
        api = PretendedApi()
        api.objects[f"{CONFIG_MAPS}/more"] = {"metadata": {"name": "more"}, "data": {"k": "v"}}
        cluster = Cluster(api, server)
        await cluster.up()
        await cluster.sandbox.prepare(CONFIG, FIRST)
        await cluster.sandbox.prepare(config, FIRST)
        asked = asyncio.create_task(cluster.sandbox.patch())
        await cluster.runner.was_told(Diff("1"))
        cluster.runner.say(Error("1", "too_large", "the patch has 9000000 bytes", 9_000_000))
        with pytest.raises(SandboxRefused) as caught:
            await asked
        assert caught.value.code == "too_large"
        assert "9000000 bytes" in str(caught.value) and says in str(caught.value)
        await cluster.home.close()
