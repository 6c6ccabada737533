"""Start the runner: ``python3 -I -m ratchet_sandbox.runner``, PID 1 of the user's container."""

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Final

from ratchet_sandbox import protocol
from ratchet_sandbox.runner.config import HARD_TIMEOUT_S, Config
from ratchet_sandbox.runner.processes import Children
from ratchet_sandbox.runner.runner import Runner

_PR_SET_CHILD_SUBREAPER: Final = 36
"""prctl(2): orphaned descendants become children of the caller."""
_PR_SET_DUMPABLE: Final = 4
"""prctl(2): 0 keeps processes of the same user from tracing the caller and reading its memory."""
UMASK: Final = 0o002
"""Files are shared with the pod's other containers through the group."""


def adopt_orphans() -> bool:
    """Make every orphan of the shell a child of this process; False if the system refuses."""
    if os.getpid() == 1:
        return True
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def hide() -> None:
    """Keep the model's commands, which run as the same user, from stopping this process for good:
    who may trace it can (ptrace(2)). What it starts can be traced again, by execve(2)."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def serve(config: Config) -> None:
    """Work until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Children(adopts_orphans=config.adopts_orphans) as children:
        await Runner(config, children, dict(os.environ)).work(stop)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ratchet-runner", description=__doc__)
    parser.add_argument("--workspace", type=Path, default=Path(protocol.WORKSPACE))
    parser.add_argument("--runtime", type=Path, default=Path(protocol.RUNTIME_DIR))
    parser.add_argument("--control", type=Path, default=Path(protocol.CONTROL_DIR))
    parser.add_argument("--port", type=int, default=protocol.RUNNER_PORT)
    parser.add_argument(
        "--hard-timeout", type=float, metavar="SECONDS",
        default=os.environ.get("RATCHET_HARD_TIMEOUT_S", HARD_TIMEOUT_S),
    )  # fmt: skip
    return parser.parse_args()


def main() -> None:
    options = arguments()
    hide()
    config = Config(
        workspace=options.workspace,
        runtime=options.runtime,
        control=options.control,
        port=options.port,
        hard_timeout_s=options.hard_timeout,
        adopts_orphans=adopt_orphans(),
    )
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    os.umask(UMASK)
    asyncio.run(serve(config))


if __name__ == "__main__":
    main()
