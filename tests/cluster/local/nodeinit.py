"""The first process of a node. Runs alone: `python3 -I nodeinit.py SPEC` in new namespaces.

It makes the node's own view of the file system (everything below is seen by this node only and
ends with it), enters the slot's control groups, and then takes in orphans until it is killed,
which ends every process of the node.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
    "kernel/timer_migration": "0",
    "kernel/unprivileged_bpf_disabled": "1",
}
"""What a kubelet wants of the kernel and sets itself (kubernetes 1.35, pkg/util/sysctl), and, the last
two, Cilium's agent (cilium 1.20, pkg/datapath/loader/base.go). These belong to the whole machine, so
the node is shown files of its own that hold the wished values."""


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, stdin=subprocess.DEVNULL)


def tmpfs(target: str) -> None:
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", target)


def arrange(state: str, programs: dict[str, str]) -> None:
    """Private /run, /var/lib and /var/log; state and programs at fixed, short paths."""
    mount("--make-rprivate", "/")
    tmpfs("/run")
    # Bound before /var/lib is covered, where the state may lie.
    for name, source in {"state": state, **programs}.items():
        target = Path("/run/ratchet") / name
        target.mkdir(parents=True)
        mount("--bind", source, str(target))
    for folder in ("/var/log", "/var/lib"):
        tmpfs(folder)
    mount("--make-rshared", "/")


def shadow_kernel_settings() -> None:
    for name, value in KERNEL_SETTINGS.items():
        original = Path("/proc/sys") / name
        if original.exists():
            mine = Path("/run/ratchet/sysctl") / name.replace("/", ".")
            mine.parent.mkdir(exist_ok=True)
            mine.write_text(value + "\n")
            mount("--bind", str(mine), str(original))


def reap_forever() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass  # No children now.
        signal.sigwait({signal.SIGCHLD})


def main(spec_path: str) -> None:
    spec = json.loads(Path(spec_path).read_text())
    for door in spec["doors"]:
        Path(door).write_text("0")  # 0 names the writer itself.
    socket.sethostname(spec["name"])
    arrange(spec["state"], spec["programs"])
    shadow_kernel_settings()
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    os.chdir("/")
    Path("/run/ratchet/state/ready").write_text("ready\n")
    reap_forever()


if __name__ == "__main__":
    main(sys.argv[1])
