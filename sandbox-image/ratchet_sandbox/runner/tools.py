"""The tools by name, each behind a check of its arguments."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ratchet_sandbox.protocol import Outcome
from ratchet_sandbox.runner.arguments import BadArguments, Field, Kind, Shape, check
from ratchet_sandbox.runner.bash import bash
from ratchet_sandbox.runner.bashtools import bash_kill, bash_output, bash_stdin
from ratchet_sandbox.runner.files import read_file, write_file
from ratchet_sandbox.runner.grep import grep
from ratchet_sandbox.runner.result import Arguments, Context, ToolResult, failed
from ratchet_sandbox.runner.search_replace import search_replace

Tool = Callable[[Context, Any], Awaitable[ToolResult]]
GRACE_S: Final = 5.0
"""How much longer than its own limit a tool on files may take before it is left alone."""

_PATH: Final = Field(Kind.LINE, required=True, least=1)
_TEXT: Final = Field(Kind.TEXT, required=True)
_COUNT: Final = Field(Kind.WHOLE, least=1)

SHAPES: Final[dict[str, Shape]] = {
    "bash": {"command": Field(Kind.LINE, required=True, least=1), "timeout": Field(Kind.NUMBER)},
    "bash_kill": {"signal": Field(Kind.LINE)},
    "bash_output": {"wait": Field(Kind.NUMBER)},
    "bash_stdin": {"text": Field(Kind.TEXT, least=1), "key": Field(Kind.LINE)},
    "grep": {
        "pattern": Field(Kind.LINE, required=True, least=1),
        "path": Field(Kind.LINE, least=1),
        "max_matches": _COUNT,
        "use_default_ignore": Field(Kind.FLAG),
    },
    "read_file": {"path": _PATH, "offset": Field(Kind.WHOLE), "limit": _COUNT},
    "search_replace": {"path": _PATH, "content": _TEXT},
    "write_file": {"path": _PATH, "content": _TEXT, "overwrite": Field(Kind.FLAG)},
}


def in_thread(
    work: Callable[[Context, Arguments], ToolResult], *, grace_s: float = GRACE_S
) -> Callable[[Context, Arguments], Awaitable[ToolResult]]:
    """A tool that blocks on files: the event loop goes on meanwhile, and so does the task if a
    disk never answers."""

    async def tool(context: Context, arguments: Arguments) -> ToolResult:
        try:
            async with asyncio.timeout(context.hard_timeout_s + grace_s):
                return await asyncio.to_thread(work, context, arguments)
        except TimeoutError:
            content = "[the file system did not answer in time; what was to be done may yet happen]"
            return ToolResult(Outcome.TIMED_OUT, content)

    return tool


def checked(shape: Shape, tool: Callable[[Context, Arguments], Awaitable[ToolResult]]) -> Tool:
    """The tool for any arguments: what does not fit is said and nothing is done."""

    async def careful(context: Context, arguments: Any) -> ToolResult:
        try:
            taken = check(shape, arguments)
        except BadArguments as bad:
            return failed(f"nothing was done: {bad}.")
        return await tool(context, taken)

    return careful


TOOLS: Final[dict[str, Tool]] = {
    name: checked(SHAPES[name], tool)
    for name, tool in {
        "bash": bash,
        "bash_kill": bash_kill,
        "bash_output": bash_output,
        "bash_stdin": bash_stdin,
        "grep": grep,
        "read_file": in_thread(read_file),
        "search_replace": in_thread(search_replace),
        "write_file": in_thread(write_file),
    }.items()
}
