"""`grep`: ripgrep from the bundle, bounded in matches, bytes and time."""

import stat
from pathlib import Path
from typing import Final

from ratchet_sandbox.protocol import Meta, Outcome
from ratchet_sandbox.runner import bundle, paths, wholefile
from ratchet_sandbox.runner.arguments import named
from ratchet_sandbox.runner.output import decode
from ratchet_sandbox.runner.processes import Completed
from ratchet_sandbox.runner.result import Arguments, Context, ToolResult, failed

OUTPUT_LIMIT: Final = 64_000
TIMEOUT_S: Final = 60.0
PATTERN_LIMIT: Final = 16 * 1024
"""Bytes of a pattern; the kernel takes 128 KiB as one argument (execve(2))."""
_DEFAULT_MATCHES: Final = 100
_OPTIONS: Final = (
    "--no-config", "--line-number", "--no-heading", "--with-filename", "--color=never",
    "--smart-case", "--sort=path", "--max-columns=500", "--max-columns-preview", "--hidden",
    "--no-require-git", "--no-messages", "--glob=!.git", "--glob=!/.ratchet",
)  # fmt: skip
_NONE: Final = 1
"""ripgrep's exit code for "no match"; 2 is an error (rg(1))."""


async def grep(context: Context, arguments: Arguments) -> ToolResult:
    """Lines that match `pattern` below `path`, at most `max_matches` of them."""
    program = bundle.command(context.config.runtime, "rg")
    if program is None:
        return failed("grep cannot work: ripgrep is missing from the sandbox's runtime; use bash")
    size = len(arguments["pattern"].encode())
    if size > PATTERN_LIMIT:
        return failed(f"the pattern has {size} bytes, over {PATTERN_LIMIT}: search for less")
    name = arguments.get("path", ".")
    try:
        target, more = _target(context.config.workspace.resolve(), name)
    except (OSError, paths.BadPath) as error:
        return failed(f"cannot search {named(name)}: {wholefile.reason(error)}")
    ignore = [] if arguments.get("use_default_ignore", True) else ["--no-ignore"]
    most = arguments.get("max_matches", _DEFAULT_MATCHES)
    limit_s = min(TIMEOUT_S, context.hard_timeout_s)
    try:
        completed = await context.children.run(
            [*program, *_OPTIONS, *more, *ignore, "-e", arguments["pattern"], "--", str(target)],
            environment={}, folder=context.config.workspace, limit=OUTPUT_LIMIT, timeout=limit_s,
            stop=context.stop, stop_after_lines=most + 1,
        )  # fmt: skip
    except OSError as error:
        return failed(f"the search could not be started: {wholefile.reason(error)}")
    return describe(completed, most, limit_s=limit_s, cancelled=context.stop.done())


def _target(workspace: Path, name: str) -> tuple[Path, list[str]]:
    """What ripgrep is told to search, from the workspace, and the options that it needs.

    Raises OSError, BadPath for what cannot be searched: ripgrep would wait for a FIFO's writer.
    """
    path = paths.resolve(workspace, name)
    found = path.stat()
    usable = stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)
    if not usable or paths.is_kernel(found):
        raise paths.BadPath(f"it is {paths.what_it_is(found)}")
    if path.is_relative_to(workspace):
        return path.relative_to(workspace), []
    return path, ["--one-file-system"]  # from / it would go on into /proc


def describe(
    completed: Completed, most: int, *, limit_s: float = TIMEOUT_S, cancelled: bool
) -> ToolResult:
    """What ripgrep's output means for the model."""
    if completed.code not in (0, _NONE, None) and not completed.output:
        return failed(f"the search failed: {completed.errors or 'ripgrep ended in an error'}")
    lines = [line.removeprefix(b"./") for line in completed.output.split(b"\n")[:-1]]
    more = len(lines) > most
    cut = completed.size > len(completed.output)
    content, bad = decode(b"\n".join(lines[:most]))
    notes = [content] if content else []
    if more:
        notes.append(f"[more than {most} matches: narrow the pattern or the path]")
    elif cut:
        notes.append(f"[cut at {OUTPUT_LIMIT} bytes: narrow the pattern or the path]")
    if completed.timed_out:
        notes.append(f"[stopped after {limit_s:g} s: narrow the path]")
    if not lines and completed.code == _NONE:
        notes.append("[no matches]")
    meta = Meta(truncated=more or cut or completed.timed_out, not_utf8=bad)
    if cancelled:
        return ToolResult(Outcome.KILLED, "\n".join([*notes, "[cancelled]"]), meta)
    outcome = Outcome.FAILED if completed.timed_out else Outcome.OK
    return ToolResult(outcome, "\n".join(notes), meta)
