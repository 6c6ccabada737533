"""What the model is told of the shell itself: one sentence each, in square brackets. Pure."""

from typing import Final

from ratchet_sandbox.runner import driver

KEPT: Final = (
    "[the shell was started again with the directory, variables, functions, aliases and options "
    "from before this command; background processes, traps and open descriptors are gone]"
)
KEPT_SH: Final = (
    "[the shell was started again with the directory, exported variables, aliases and options "
    "from before this command; functions, other variables and background processes are gone]"
)
SIGNALLED: Final = (
    "[{signal} ended the command and the shell with it; the shell is started again with its "
    "directory, variables, functions, aliases and options as they were at that point]"
)
RESTRICTED: Final = (
    "[this made the shell a restricted one (set -r), in which no command can be run; it is started "
    "again with its directory, variables, functions, aliases and other options]"
)
LOST: Final = "[the shell ended without a word: killed, replaced by exec, or ended by an error]"
KILLED: Final = "[the command and everything that the shell had started were killed]"
EXITED: Final = (
    "[this ended the shell (exit or set -e); it is started again with its directory, variables, "
    "functions, aliases and options as they were at that point]"
)
EXITED_UNSAVED: Final = (
    "[this ended the shell (exit or set -e); it is started again as it was before this command]"
)
GONE: Final = (
    "[the shell had died since the last command and was started again with the state saved then]"
)
RESTARTED: Final = (
    "[the sandbox's container was restarted since the last command: processes and changes outside "
    "the workspace are gone; the shell is as it was after the last command that ended]"
)
BLANK: Final = "[the saved state could not be restored: this is a new shell in the workspace]"
FORGOTTEN: Final = "[the saved state was deleted: this is a new shell in the workspace]"

_JOBS: Final = 8
_JOB: Final = 100
"""How many background jobs are told of, and how many characters of each."""


def why_it_ended(state: driver.State | None, signal_sent: str) -> str:
    """`signal_sent`: name of the signal that one of the tools sent, if any."""
    if state is None:
        return EXITED_UNSAVED
    return SIGNALLED.format(signal=signal_sent) if signal_sent else EXITED


def jobs(state: driver.State | None) -> tuple[str, ...]:
    """Background jobs that went with a container."""
    if state is None or not state.running:
        return ()
    # A command may hold bytes that are no text, which the state keeps as lone surrogates.
    listed = "; ".join(job[:_JOB] for job in state.running[:_JOBS])
    shown = listed.encode(errors="replace").decode()
    return (f"[background jobs that were running and are gone: {shown}]",)


def left_running(command: str) -> tuple[str, ...]:
    """A command that went with a container; empty if there was none."""
    return (f"[this command was still running and is gone: {command}]",) if command else ()


def killed(names: str) -> tuple[str, ...]:
    """Processes that were killed beside the shell."""
    return (f"[killed: {names}]",) if names else ()


def undying(pids: set[int]) -> tuple[str, ...]:
    """Processes that would not die."""
    return (f"[{len(pids)} processes could not be killed]",) if pids else ()
