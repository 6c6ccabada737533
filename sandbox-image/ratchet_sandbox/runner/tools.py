"""The tools by name."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ratchet_sandbox.runner.bash import bash
from ratchet_sandbox.runner.files import read_file, write_file
from ratchet_sandbox.runner.grep import grep
from ratchet_sandbox.runner.result import Arguments, Context, ToolResult
from ratchet_sandbox.runner.search_replace import search_replace

Tool = Callable[[Context, Arguments], Awaitable[ToolResult]]


def in_thread(work: Callable[[Context, Arguments], ToolResult]) -> Tool:
    """A tool that blocks on files: the event loop goes on meanwhile."""

    async def tool(context: Context, arguments: Arguments) -> ToolResult:
        return await asyncio.to_thread(work, context, arguments)

    return tool


TOOLS: Final[dict[str, Tool]] = {
    "bash": bash,
    "grep": grep,
    "read_file": in_thread(read_file),
    "search_replace": in_thread(search_replace),
    "write_file": in_thread(write_file),
}
