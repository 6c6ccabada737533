"""How many processes and threads commands may have at once where the kernel is gVisor.

Under runc the pod's pids limit refuses a fork, and the command gets an error. Under gVisor each
process and thread inside costs about three of the pod's pids outside (measured: runsc of September
2026, systrap), and its kernel ends, with the whole pod, when it can have no more. It counts
RLIMIT_NPROC by sandbox and user, so the limit can be set there. Under runc it must not be: Linux
counts all processes of a uid, in every sandbox of the node (getrlimit(2)).
"""

import os
import resource
from typing import Final

PROCESSES: Final = 128
"""Leaves room in a pod's pids limit of 512, and for the server, whose user is another one."""


def bounded(release: str) -> bool:
    """Whether a kernel with this release (uname(2)) needs the limit: 4.19.0-gvisor does."""
    return "gvisor" in release


def bound(pid: int, release: str | None = None) -> None:
    """Limit what a child and all that it starts may have; does nothing where that is not needed."""
    if not bounded(os.uname().release if release is None else release):
        return
    try:
        resource.prlimit(pid, resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
    except (ProcessLookupError, PermissionError, ValueError):
        # It has ended, is another user's by now, or has a lower limit already.
        return
