"""The command line: arguments in, text out, an exit code."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from ratchet.cli import getting
from ratchet.cli.audit import Audit, audits
from ratchet.cli.cluster import Cluster, Where, connect
from ratchet.cli.failures import DONE, UNABLE, Failed
from ratchet.cli.inputs import UnreadableInput, objects
from ratchet.cli.text import told

VALID, BROKEN, UNREADABLE = 0, 1, 2
Connect = Callable[[Where], AbstractAsyncContextManager[Cluster]]

_VERIFY = """\
Check journals offline: numbers, kinds, owners, digests, links, requests, results, the end.
Input is what kubectl prints as JSON, of one task or of several:

  kubectl get agentturns,configmaps -l ratchet.run/task-uid=UID -o json | ratchet verify -

An AgentTask among the input is compared with its journal, ConfigMaps with the patch that they hold.
Exit code: 0 all is well, 1 a journal is broken, 2 the input cannot be judged.
"""


_DIFF = """\
Print what a task changed in its workspace, as a git patch with binary files, untracked ones
included. Of a task that has ended it is the patch that its journal names, with its digest checked;
of one that goes on, the workspace as it is now. The base commit is in status.result.baseCommit:

  ratchet diff TASK -n NAMESPACE | git apply --binary --index

Exit code: 0 printed, 1 what is stored is not what was recorded, 2 there is none to be had.
"""
_FILES_GET = """\
Print a file of a task's workspace, up to 1 MiB of a task that goes on. Of a task that has ended it
is made of its start files and its patch; of one that began with a git clone only files that the
task made or that spec.files brought can be had so.

Exit code: 0 printed, 1 what is stored is not what was recorded, 2 it is not to be had.
"""


def main(arguments: Sequence[str] | None = None, connect: Connect = connect) -> int:
    """Run the command and return its exit code."""
    chosen = _parser().parse_args(arguments)
    if chosen.command == "verify":
        return _verify(chosen.file, chosen.verbose)
    where = Where(chosen.namespace, chosen.context, chosen.kubeconfig)

    async def ask() -> bytes:
        async with connect(where) as cluster:
            if chosen.command == "diff":
                return await getting.diff(cluster, chosen.task)
            return await getting.file(cluster, chosen.task, chosen.path)

    return _print(f"ratchet {chosen.command}", ask())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ratchet", description="Tools for Ratchet's tasks.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter
    verify = commands.add_parser(
        "verify", help="check the journals of tasks", description=_VERIFY, formatter_class=raw
    )
    verify.add_argument("file", nargs="+", help="a file with JSON, or - for standard input")
    verify.add_argument("-v", "--verbose", action="store_true", help="a line for each record")
    diff = commands.add_parser(
        "diff", help="print what a task changed", description=_DIFF, formatter_class=raw
    )
    files = commands.add_parser("files", help="files of a task's workspace")
    verbs = files.add_subparsers(dest="verb", required=True, metavar="VERB")
    get = verbs.add_parser("get", help="print a file", description=_FILES_GET, formatter_class=raw)
    for asking in (diff, get):
        asking.add_argument("task", help="name of the AgentTask")
        asking.add_argument("-n", "--namespace", default="", help="default: the context's")
        asking.add_argument("--context", default="", help="context of the kubeconfig")
        asking.add_argument("--kubeconfig", default="", help="default: KUBECONFIG, ~/.kube/config")
    get.add_argument("path", help="path in the workspace, such as src/main.py")
    return parser


def _print(command: str, asked: Coroutine[None, None, bytes]) -> int:
    """Write the bytes as they are; a sentence goes to stderr."""
    try:
        data = asyncio.run(asked)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except Failed as failed:
        print(f"{command}: {failed}", file=sys.stderr)
        return failed.code
    except BrokenPipeError:  # whoever reads has had enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNABLE
    return DONE


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
