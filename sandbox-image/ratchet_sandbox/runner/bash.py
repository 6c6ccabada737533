"""The `bash` tool: a command in the persistent shell, and what to tell the model of it.

A command that takes longer than its soft timeout is left running; `bashtools` has what can be
done about it then.
"""

from dataclasses import replace
from typing import Final

from ratchet_sandbox.protocol import Meta, Outcome
from ratchet_sandbox.runner import home
from ratchet_sandbox.runner.command import End, Ended, Running
from ratchet_sandbox.runner.output import Capture, Text
from ratchet_sandbox.runner.result import Arguments, Context, ToolResult, failed
from ratchet_sandbox.runner.shell import ShellError

_OUTCOMES: Final = {
    End.DIED: Outcome.KILLED,
    End.CANCELLED: Outcome.KILLED,
    End.KILLED: Outcome.KILLED,
    End.TIMED_OUT: Outcome.TIMED_OUT,
}
_BUSY: Final = (
    "busy: the previous command is still running, so nothing was run. Use bash_output, bash_stdin "
    "or bash_kill; at its hard limit it is killed, in {left:.0f} s."
)
_UNTOLD: Final = (
    "[the command that had been left running has ended: bash_output gives what is untold of it]"
)


async def bash(context: Context, arguments: Arguments) -> ToolResult:
    """Run `command` and wait for its end, at most `timeout` seconds; then it is left running."""
    command = arguments["command"]
    if "\0" in command:
        return failed("the command holds a NUL character, which no shell can take; leave it out")
    shell = context.shell
    if shell.busy:
        return ToolResult(Outcome.DENIED, _BUSY.format(left=shell.seconds_left))
    untold = (_UNTOLD,) if shell.left else ()
    soft_s = float(arguments.get("timeout") or context.soft_timeout_s)
    try:
        running = await shell.start(
            command, capture=Capture(context.spill), limit_s=context.hard_timeout_s
        )
        running.notes = (*untold, *running.notes)
        patience_s = soft_s if soft_s < context.hard_timeout_s else None
        ended = await running.wait(patience_s, context.stop)
    except ShellError as error:
        return failed(f"the command was not run: {error}")
    except OSError as error:
        return failed(f"the command was not run: the workspace cannot be written: {error}")
    if ended is None:
        shell.leave(running)
    home.forget_old_spills(context.config)
    return tell(context, running, ended)


def tell(context: Context, running: Running, ended: Ended | None, *notes: str) -> ToolResult:
    """What there is to tell of a command since the last time: its output, then notes in brackets."""
    text = running.capture.take()
    if ended is None:
        return _going_on(context, running, text, notes)
    context.shell.told(running)
    lines = _lines(text, *notes)
    if ended.how is End.TIMED_OUT:
        lines.append(f"[timed out after {running.limit_s:g} s]")
    if ended.how is End.CANCELLED:
        lines.append("[cancelled]")
    lines += ended.notes
    if ended.exit_code:
        lines.append(f"[exit code {ended.exit_code}]")
    ordinary = Outcome.FAILED if ended.exit_code else Outcome.OK
    meta = replace(
        _meta(context, text),
        exit_code=ended.exit_code,
        duration_ms=int(ended.duration_s * 1000),
    )
    return ToolResult(_OUTCOMES.get(ended.how, ordinary), "\n".join(lines), meta)


def _going_on(context: Context, running: Running, text: Text, notes: tuple[str, ...]) -> ToolResult:
    lines = _lines(text, *running.notes, *notes)
    running.notes = ()
    left = max(running.limit_s - running.seconds, 0)
    lines.append(
        f"[still running after {running.seconds:.0f} s: use bash_output, bash_stdin or bash_kill; "
        f"in {left:.0f} s, at its hard limit, it is killed]"
    )
    return ToolResult(Outcome.STILL_RUNNING, "\n".join(lines), _meta(context, text))


def _lines(text: Text, *notes: str) -> list[str]:
    return [*([text.content.removesuffix("\n")] if text.content else []), *notes]


def _meta(context: Context, text: Text) -> Meta:
    spill = str(text.spill.relative_to(context.config.workspace)) if text.spill else None
    return Meta(truncated=text.truncated, spill=spill, not_utf8=text.not_utf8)
