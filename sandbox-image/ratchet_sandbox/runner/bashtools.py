"""`bash_output`, `bash_stdin` and `bash_kill`: what can be done about a command left running."""

import signal
from dataclasses import replace
from typing import Final

from ratchet_sandbox.protocol import Outcome
from ratchet_sandbox.runner import signals, terminal
from ratchet_sandbox.runner.bash import tell
from ratchet_sandbox.runner.command import End, Running
from ratchet_sandbox.runner.result import Arguments, Context, ToolResult, failed

LONGEST_WAIT_S: Final = 60.0
_WAIT_S: Final = 10.0
_ANSWER_S: Final = 2.0
"""How long a command is given to answer what is typed."""
_END_S: Final = 3.0
"""How long a command is given to end after a signal."""

KEYS: Final = ("ctrl-c", "ctrl-d", "ctrl-z", "enter")
SIGNALS: Final = {name: signal.Signals[f"SIG{name}"] for name in ("TERM", "INT", "KILL", "HUP")}


async def bash_output(context: Context, arguments: Arguments) -> ToolResult:
    """What a command has written since it was last told of, and its end, for which `wait` seconds
    are waited."""
    running = context.shell.left
    if running is None:
        return _none(context)
    wait_s = min(float(arguments.get("wait", _WAIT_S)), LONGEST_WAIT_S)
    return tell(context, running, await running.wait(wait_s, context.stop))


async def bash_stdin(context: Context, arguments: Arguments) -> ToolResult:
    """Type `text` or press `key`, and tell what the command answers."""
    text, key = arguments.get("text"), arguments.get("key")
    if (text is None) == (key is None):
        return failed("give either text or key; nothing was typed")
    if key is not None and key not in KEYS:
        return failed(f"key must be one of {', '.join(KEYS)}; nothing was typed")
    running = context.shell.left
    if running is None:
        return _none(context)
    if ended := running.ended:
        return tell(context, running, ended, "[it had ended before; nothing was typed]")
    wrong = _press(running, key) if key else _type(running, (text or "").encode())
    if wrong:
        return failed(f"{wrong}; nothing was typed")
    return tell(context, running, await running.answer(_ANSWER_S, context.stop))


async def bash_kill(context: Context, arguments: Arguments) -> ToolResult:
    """Send `signal`; KILL ends everything that the shell has started, as a hard timeout does."""
    name = arguments.get("signal", "TERM")
    if name not in SIGNALS:
        return failed(f"signal must be one of {', '.join(SIGNALS)}; nothing was done")
    running = context.shell.left
    if running is None:
        return _none(context)
    if ended := running.ended:
        return tell(context, running, ended, "[it had ended before; no signal was sent]")
    number = SIGNALS[name]
    if number is signal.SIGKILL:
        running.end(End.KILLED)
        return _done(tell(context, running, await running.wait(None, context.stop)))
    started = signals.to_command(running, number)
    ended = await running.wait(_END_S, context.stop)
    if ended is None:
        note = f"[{number.name} was sent and the command goes on; KILL ends it for certain]"
        return tell(context, running, None, note)
    swept = await signals.sweep(started)
    notes = (f"[{swept} of its processes went on and were killed]",) if swept else ()
    return _done(tell(context, running, ended, *notes))


def _done(result: ToolResult) -> ToolResult:
    """Ending the command is what was asked for, however it ended."""
    return replace(result, outcome=Outcome.OK)


def _none(context: Context) -> ToolResult:
    return failed("\n".join(("no command is running", *context.shell.what_was_lost())))


def _press(running: Running, key: str) -> str:
    """Press a key; what is wrong, empty if nothing is."""
    match key:
        case "ctrl-c":
            running.terminal.forget()
            signals.to_command(running, signal.SIGINT)
            return ""
        case "ctrl-z":
            stopped = signals.pause(running)
            return "" if stopped else "the command is the shell's own, which cannot be stopped"
        case "ctrl-d":
            return _type(running, terminal.END_OF_INPUT)
        case _:
            return _type(running, b"\n")


def _type(running: Running, data: bytes) -> str:
    if not running.terminal.there:
        return "commands have no input here (/dev/null): the system gives no pseudo-terminal"
    return running.terminal.type(data)
