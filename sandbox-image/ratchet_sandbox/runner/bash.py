"""The `bash` tool: a command in the persistent shell, and its end in words for the model."""

from pathlib import Path
from typing import Final

from ratchet_sandbox.protocol import Meta, Outcome
from ratchet_sandbox.runner import home
from ratchet_sandbox.runner.output import Capture, Text
from ratchet_sandbox.runner.result import Arguments, Context, ToolResult, failed
from ratchet_sandbox.runner.shell import End, Ended, ShellError

_OUTCOMES: Final = {
    End.DIED: Outcome.KILLED,
    End.CANCELLED: Outcome.KILLED,
    End.TIMED_OUT: Outcome.TIMED_OUT,
}


async def bash(context: Context, arguments: Arguments) -> ToolResult:
    """Run `command`; `timeout` (seconds) is a hard limit, at most the call's own."""
    command = arguments["command"]
    if "\0" in command:
        return failed("the command holds a NUL character, which no shell can take; leave it out")
    if context.shell.busy:
        return ToolResult(Outcome.DENIED, _busy(context.hard_timeout_s))
    limit_s = min(float(arguments.get("timeout") or context.hard_timeout_s), context.hard_timeout_s)
    capture = Capture(context.spill)
    try:
        ended = await context.shell.run(
            command, capture=capture, limit_s=limit_s, stop=context.stop
        )
    except ShellError as error:
        return failed(f"the command was not run: {error}")
    except OSError as error:
        return failed(f"the command was not run: the workspace cannot be written: {error}")
    home.forget_old_spills(context.config)
    return describe(ended, capture.text(), limit_s=limit_s, workspace=context.config.workspace)


def describe(ended: Ended, text: Text, *, limit_s: float, workspace: Path) -> ToolResult:
    """The result of a command that has ended: its output, then notes in square brackets."""
    lines = [text.content.removesuffix("\n")] if text.content else []
    if ended.how is End.TIMED_OUT:
        lines.append(f"[timed out after {limit_s:g} s]")
    if ended.how is End.CANCELLED:
        lines.append("[cancelled]")
    lines += ended.notes
    if ended.exit_code:
        lines.append(f"[exit code {ended.exit_code}]")
    meta = Meta(
        exit_code=ended.exit_code,
        truncated=text.truncated,
        spill=str(text.spill.relative_to(workspace)) if text.spill else None,
        duration_ms=int(ended.duration_s * 1000),
        not_utf8=text.not_utf8,
    )
    ordinary = Outcome.FAILED if ended.exit_code else Outcome.OK
    return ToolResult(_OUTCOMES.get(ended.how, ordinary), "\n".join(lines), meta)


def _busy(limit_s: float) -> str:
    return (
        "busy: the previous command is still running; it will be ended at its hard limit of "
        f"{limit_s:g} s. Nothing was run."
    )
