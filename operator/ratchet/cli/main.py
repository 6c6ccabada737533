"""The command line: arguments in, text out, an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ratchet.cli.audit import Audit, audits
from ratchet.cli.inputs import UnreadableInput, objects
from ratchet.cli.text import told

VALID, BROKEN, UNREADABLE = 0, 1, 2

_VERIFY = """\
Check journals offline: numbers, kinds, owners, digests, links, requests, results, the end.
Input is what kubectl prints as JSON, of one task or of several:

  kubectl get agentturns,configmaps -l ratchet.run/task-uid=UID -o json | ratchet verify -

An AgentTask among the input is compared with its journal, ConfigMaps with the patch that they hold.
Exit code: 0 all is well, 1 a journal is broken, 2 the input cannot be judged.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="ratchet", description="Tools for Ratchet's tasks.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        help="check the journals of tasks",
        description=_VERIFY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("file", nargs="+", help="a file with JSON, or - for standard input")
    verify.add_argument("-v", "--verbose", action="store_true", help="a line for each record")
    chosen = parser.parse_args(arguments)
    return _verify(chosen.file, chosen.verbose)


def _verify(files: Sequence[str], verbose: bool) -> int:
    try:
        found = audits([item for name in files for item in objects(name, _text(name))])
    except UnreadableInput as error:
        print(f"ratchet verify: {error}", file=sys.stderr)
        return UNREADABLE
    for audit in found:
        print("\n".join(told(audit, verbose)))
    return max(map(_code, found), key=lambda code: (VALID, UNREADABLE, BROKEN).index(code))


def _text(name: str) -> str:
    try:
        if name == "-":
            return sys.stdin.buffer.read().decode("utf-8")
        return Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableInput(f"{name} cannot be read: {error}") from error


def _code(audit: Audit) -> int:
    if audit.broken:
        return BROKEN
    return UNREADABLE if audit.faults else VALID
