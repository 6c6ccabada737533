"""A runner's parts in a folder of the test: no root, no cluster, no network beyond loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratchet_sandbox.runner import kept, shellprocess
from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.guides import Guides
from ratchet_sandbox.runner.prepare import prepare
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
        made.mkdir(parents=True, exist_ok=True)
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
    guides: Guides = field(default_factory=Guides)

    async def use(
        self, tool: str, *, hard_timeout_s: float = 30, stop: asyncio.Future[None] | None = None,
        **arguments: Any,
    ) -> ToolResult:  # fmt: skip
        return await self.use_raw(tool, arguments, hard_timeout_s=hard_timeout_s, stop=stop)

    async def use_raw(
        self, tool: str, arguments: Any, *, hard_timeout_s: float = 30,
        stop: asyncio.Future[None] | None = None,
    ) -> ToolResult:  # fmt: skip
        """Like `use`, with arguments of any kind."""
        context = self.context(hard_timeout_s=hard_timeout_s, stop=stop)
        return await TOOLS[tool](context, arguments)

    def context(
        self, *, hard_timeout_s: float = 30, stop: asyncio.Future[None] | None = None
    ) -> Context:
        """What the next call's tool is given."""
        self.calls += 1
        return Context(
            config=self.config,
            children=self.children,
            shell=self.shell,
            key=f"{KEY[:-1]}{self.calls}",
            hard_timeout_s=hard_timeout_s,
            stop=stop or asyncio.get_running_loop().create_future(),
            guides=self.guides,
        )

    async def bash(self, command: str, **more: Any) -> ToolResult:
        return await self.use("bash", command=command, **more)

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition, with a deadline."""
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110  other processes set no event
                await asyncio.sleep(0.005)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.config.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


@contextlib.asynccontextmanager
async def open_bench(folder: Path, sh: Path | None = None) -> AsyncIterator[Bench]:
    """Tools in a new workspace; with `sh` the image's shell is that one and no bash."""
    config = make_config(folder)
    find = shellprocess.find_shell if sh is None else lambda _: (sh, False)
    async with Children() as children:
        shell = Shell(config, children, os.environ, find=find)
        try:
            yield Bench(config, children, shell)
        finally:
            await shell.close()


def make_base(config: Config, files: Mapping[str, str]) -> None:
    """Workspace and base repository, made as in the init container."""
    start, bundled = config.runtime.parent / "files", config.runtime.parent / "bundled"
    start.mkdir()
    bundled.mkdir()
    index = []
    for number, (path, content) in enumerate(files.items()):
        (start / f"f{number}").write_text(content)
        index.append({"path": path, "source": f"f{number}", "mode": "0644"})
    (start / "index.json").write_text(json.dumps(index))
    prepare(config, bundled=bundled, start_files=start, task_uid="uid-1")


def unmark(config: Config) -> None:
    """The workspace as an interrupted preparation leaves it: begun, and not complete."""
    kept.begun(config, "uid-1")


def alive(marker: str) -> list[int]:
    """Pids of processes with this word on their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
            if marker.encode() in words and "Z" not in (folder / "stat").read_text().split()[2]:
                found.append(int(folder.name))
    return found
