"""A runner's parts in a folder of the test: no root, no cluster, no network beyond loopback."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.processes import Children
from ratchet_sandbox.runner.result import Context, ToolResult
from ratchet_sandbox.runner.shell import Shell
from ratchet_sandbox.runner.tools import TOOLS

KEY = "0f3c9a1e-5555-4444-8888-121212121212/1/0"


def make_config(folder: Path) -> Config:
    """A workspace, a runtime whose programs are this machine's, and a control folder."""
    config = Config(
        workspace=folder / "workspace", runtime=folder / "runtime", control=folder / "control"
    )
    for made in (config.workspace, config.runtime / "bin", config.control):
        made.mkdir(parents=True)
    for program in ("git", "rg"):
        if found := shutil.which(program):
            (config.runtime / "bin" / program).symlink_to(found)
    return config


@dataclass
class Bench:
    """Tools at work in one workspace; calls are numbered."""

    config: Config
    children: Children
    shell: Shell
    calls: int = 0

    async def use(
        self, tool: str, *, hard_timeout_s: float = 30, stop: asyncio.Future[None] | None = None,
        **arguments: Any,
    ) -> ToolResult:  # fmt: skip
        self.calls += 1
        context = Context(
            config=self.config,
            children=self.children,
            shell=self.shell,
            key=f"{KEY[:-1]}{self.calls}",
            hard_timeout_s=hard_timeout_s,
            stop=stop or asyncio.get_running_loop().create_future(),
        )
        return await TOOLS[tool](context, arguments)

    async def bash(self, command: str, **more: Any) -> ToolResult:
        return await self.use("bash", command=command, **more)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.config.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


async def with_bench(folder: Path, test: Callable[[Bench], Awaitable[None]]) -> None:
    config = make_config(folder)
    async with Children() as children:
        shell = Shell(config, children, os.environ)
        try:
            await test(Bench(config, children, shell))
        finally:
            await shell.close()


def make_base(config: Config, files: dict[str, str]) -> None:
    """The workspace and its base repository, as the init container makes them."""
