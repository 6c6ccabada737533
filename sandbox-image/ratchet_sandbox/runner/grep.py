"""`grep`: ripgrep from the bundle, bounded in matches, bytes and time."""

from typing import Final

from ratchet_sandbox.protocol import Meta, Outcome
from ratchet_sandbox.runner import bundle, paths
from ratchet_sandbox.runner.output import decode
from ratchet_sandbox.runner.processes import Completed
from ratchet_sandbox.runner.result import Arguments, Context, ToolResult, failed

OUTPUT_LIMIT: Final = 64_000
TIMEOUT_S: Final = 60.0
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
    try:
        where = paths.resolve(context.config.workspace, arguments.get("path") or ".")
    except paths.BadPath as error:
        return failed(str(error))
    if not where.exists():
        return failed(f"{arguments['path']}: no such file or folder")
    workspace = context.config.workspace.resolve()
    target = where.relative_to(workspace) if where.is_relative_to(workspace) else where
    ignore = [] if arguments.get("use_default_ignore", True) else ["--no-ignore"]
    most = arguments.get("max_matches") or _DEFAULT_MATCHES
    completed = await context.children.run(
        [*program, *_OPTIONS, *ignore, "-e", arguments["pattern"], "--", str(target)],
        environment={}, folder=workspace, limit=OUTPUT_LIMIT, timeout=TIMEOUT_S,
        stop=context.stop, stop_after_lines=most + 1,
    )  # fmt: skip
    return describe(completed, most, cancelled=context.stop.done())


def describe(completed: Completed, most: int, *, cancelled: bool) -> ToolResult:
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
        notes.append(f"[stopped after {TIMEOUT_S:g} s: narrow the path]")
    if not lines and completed.code == _NONE:
        notes.append("[no matches]")
    meta = Meta(truncated=more or cut or completed.timed_out, not_utf8=bad)
    if cancelled:
        return ToolResult(Outcome.KILLED, "\n".join([*notes, "[cancelled]"]), meta)
    outcome = Outcome.FAILED if completed.timed_out else Outcome.OK
    return ToolResult(outcome, "\n".join(notes), meta)
