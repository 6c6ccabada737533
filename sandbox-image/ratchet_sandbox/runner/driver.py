"""The text that drives the persistent shell, and the text that comes back. Pure.

The shell reads its script from a pipe, a few lines per call. Three things never touch a
command's output: the exit code, the end of the command, and the saved state.

The report is the message of a failing expansion, ``${name:?text}``, in a subshell. It is the one
way for a shell to write a chosen text that needs no command, so that nothing that the user
redefines (functions, aliases, builtins switched off) stands in its way. The name holds a nonce
of this call. The shell's own standard error is the report's pipe and its standard output the
state's; a command gets other ones.

bash is served in full; any other POSIX shell with what it can list of its own state.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

STATE_LIMIT: Final = 4 * 1024 * 1024

_OPTIONS_NOT_KEPT: Final = frozenset({
    "errexit", "noexec", "onecmd", "monitor", "privileged", "interactive", "stdin", "history",
})  # fmt: skip
_BASH_DEFAULT_OPTIONS: Final = ("braceexpand", "hashall", "interactive-comments")
_SH_OPTIONS: Final = frozenset({
    "noglob", "nounset", "xtrace", "verbose", "noclobber", "allexport", "pipefail",
})  # fmt: skip

_STATE: Final = 62
_REPORT: Final = 63
"""Where bash keeps its state and report pipes for its last words: beyond what scripts use."""


@dataclass(frozen=True, slots=True)
class Report:
    """The end of a command: its exit code, and whether the shell ends with it."""

    exit_code: int
    shell_ends: bool


@dataclass(frozen=True, slots=True)
class State:
    """What a shell can be brought back to. Each field is text for the shell to read."""

    options: str
    """bash: ``$SHELLOPTS/$BASHOPTS/$-``; sh: the output of ``set +o``."""
    aliases: str
    umask: str
    functions: str
    variables: str
    jobs: str = ""
    """What ``jobs`` lists. It cannot be restored, only told of."""

    @property
    def restricted(self) -> bool:
        """Whether bash takes no redirections any more (``set -r``), and so no further command."""
        return "r" in _three(self.options)[2]

    @property
    def running(self) -> tuple[str, ...]:
        """The commands of the background jobs that had not ended."""
        return tuple(_JOB.findall(self.jobs))


_JOB: Final = re.compile(r"^\[\d+\][+ -]*(?:Running|Stopped)\S*\s+(.+?)(?: &)?$", re.MULTILINE)


def _three(options: str) -> tuple[str, str, str]:
    first, second, third, *_ = (*options.split("/"), "", "")
    return first, second, third


def opening(*, bash: bool, nonce: str, restore: Path | None) -> str:
    """The first lines for a new shell; it reports code 0 when it is ready."""
    lines = []
    if bash:
        lines += [f"exec {_STATE}>&1 {_REPORT}>&2", "shopt -s expand_aliases"]
    if restore:
        lines.append(f". {shlex.quote(str(restore))} </dev/null >/dev/null 2>&1")
    lines.append("! ( ${" + f"e_{nonce}" + ':?"0"} )')
    return "\n".join(lines) + "\n"


def call(*, bash: bool, nonce: str, command: Path, source: str, output: Path) -> str:
    """The lines that run a command file with input from `source` and its output into a FIFO,
    report, and save.

    `set +e` comes first: errexit holds for one call, or the first command that fails in a later
    one would end the shell. The trap is for a command that ends the shell by itself (exit, set
    -e, set -u): code and state are then still reported; it runs with the command's
    redirections in force, hence the descriptors of its own.
    """
    save = _save_bash(nonce) if bash else _save_sh(nonce)
    # Kept in a variable first: bash sets $? before it expands the text of ${name:?text}. Quoted
    # inside: a command may have set IFS to digits.
    report = "! ( c_" + nonce + "=$?; ${{{0}_" + nonce + ':?"$c_' + nonce + '"}} )'
    saved = "! ( ${s_" + nonce + ':?"0"} )'
    lines = ["\\set +e"]
    if bash:
        last = "; ".join((
            f"{report.format('x')} 2>&{_REPORT}",
            f"{save} >&{_STATE} 2>&{_REPORT}",
            f"{saved} 2>&{_REPORT}",
        ))  # fmt: skip
        lines.append(f"\\trap -- '{last}' EXIT")
    lines += [
        f"{{ \\. {shlex.quote(str(command))}; }} <{shlex.quote(source)} >{shlex.quote(str(output))} 2>&1",
        report.format("e"),
        save,
        saved,
    ]
    return "\n".join(lines) + "\n"


_REPORTED: Final = re.compile(rb"\b([exs])_([0-9a-f]{32}): (\d{1,3})\b")


def reports(data: bytes) -> list[tuple[str, str, int]]:
    """The (kind, nonce, code) in what came over the report's pipe; noise is passed over.

    Kinds: e = the command ended, x = the shell ends with it, s = the state is saved.
    """
    return [
        (kind.decode(), nonce.decode(), int(code)) for kind, nonce, code in _REPORTED.findall(data)
    ]


def parse_state(data: bytes, nonce: str) -> State | None:
    """The state that a shell wrote; None if it is not whole or far too large."""
    if len(data) > STATE_LIMIT:
        return None
    # surrogateescape: names and values may be any bytes, and go back as they came.
    parts = data.decode(errors="surrogateescape").split(f"\n#{nonce}\n")
    if len(parts) != 7 or parts[6] != "":
        return None
    jobs, options, aliases, umask, functions, variables, _ = parts
    return State(options, aliases, umask, functions, variables, jobs)


def restore_script(
    state: State, *, bash: bool, workspace: Path, exported: Mapping[str, str]
) -> str:
    """A script that brings a new shell to this state, but for the `exported` variables."""
    exports = "\n".join(f"export {name}={shlex.quote(v)}" for name, v in exported.items())
    changed = replace(state, variables=f"{state.variables}\n{exports}")
    return (_restore_bash if bash else _restore_sh)(changed, workspace)


def _save_bash(nonce: str) -> str:
    # Assigning POSIXLY_CORRECT switches POSIX mode on, where `unset` cannot be a function; then
    # `builtin` is freed, and everything after it is reached through that.
    mark = f'builtin printf "\\n#%s\\n" {nonce}'
    # `jobs` knows none in a subshell, so it stands before it; what it writes may be anybody's.
    return "; ".join((
        "{ ! \\builtin jobs",
        f"( v_{nonce}=$SHELLOPTS/$BASHOPTS/$-",
        "POSIXLY_CORRECT=1",
        "\\unset -f builtin",
        "\\unset POSIXLY_CORRECT",
        mark,
        f'builtin printf "%s" "$v_{nonce}"',
        f"builtin unset v_{nonce}",
        mark,
        "builtin alias -p",
        "builtin unalias -a",
        mark,
        "builtin umask -p",
        mark,
        "builtin declare -f",
        mark,
        "builtin declare -p",
        mark + " ); }",
    ))  # fmt: skip


def _save_sh(nonce: str) -> str:
    mark = f"printf '\\n#%s\\n' {nonce}"
    steps = (
        mark,
        "set +o",
        mark,
        "alias",
        mark,
        'echo "umask $(umask)"',
        mark,
        mark,
        "export -p",
        mark,
    )
    return f"{{ ! jobs; ( {'; '.join(steps)} ); }}"


def _restore_bash(state: State, workspace: Path) -> str:
    options, switches, _ = _three(state.options)
    enabled = [o for o in options.split(":") if o and o not in _OPTIONS_NOT_KEPT]
    default_off = [o for o in _BASH_DEFAULT_OPTIONS if o not in enabled]
    # Functions come late, so that none of them can stand in for what this script uses, and are
    # read with aliases off; extglob and the like must already be set to read them.
    return "\n".join((
        "while read -r __name __value; do",
        f"  case {shlex.quote(f':{switches}:')} in",
        '    *":$__name:"*) shopt -s "$__name" ;;',
        '    *) shopt -u "$__name" ;;',
        "  esac",
        'done <<<"$(shopt)"',
        "unset __name __value",
        "shopt -u expand_aliases",
        state.aliases,
        state.umask,
        state.variables,
        f'cd -- "$PWD" || cd -- {shlex.quote(str(workspace))}',
        state.functions,
        *(["builtin shopt -s expand_aliases"] if "expand_aliases" in switches.split(":") else []),
        *(f"builtin set +o {o}" for o in default_off),
        *(f"builtin set -o {o}" for o in enabled),
    )) + "\n"  # fmt: skip


_SH_ALIAS = re.compile(r"(?:alias )?([^\s=']+='[^']*')")
_SH_OPTION = re.compile(r"set -o (\w+)")


def _restore_sh(state: State, workspace: Path) -> str:
    aliases = [m[1] for line in state.aliases.splitlines() if (m := _SH_ALIAS.fullmatch(line))]
    options = [m[1] for line in state.options.splitlines() if (m := _SH_OPTION.fullmatch(line))]
    return "\n".join((
        state.umask,
        state.variables,
        f'cd -- "$PWD" || cd -- {shlex.quote(str(workspace))}',
        *(f"alias {alias}" for alias in aliases),
        *(f"set -o {option}" for option in options if option in _SH_OPTIONS),
    )) + "\n"  # fmt: skip
