"""Where things are in a sandbox pod. The sandbox images have the same values; a test compares."""

from __future__ import annotations

HTTPS_PORT = 8443
SERVER_UID = 10001
RUNNER_UID = 10000
SHARED_GID = 10000

WORKSPACE = "/workspace"
RUNTIME = "/ratchet/runtime"
BUNDLE = "/ratchet/bundle"
"""Only with image volumes: the runner's files, to which RUNTIME then has links."""
BUNDLED = "opt/ratchet/runtime"
"""Where the runner image has them."""
PASSWD = "etc/passwd"
"""The list of users, below the runtime."""
CONTROL = "/ratchet/control"
LEDGER = "/ratchet/ledger"
SECRET = "/ratchet/secret"
FILES = "/ratchet/files"
KEPT = "/ratchet/kept"
"""Only with a claim: what `prepare` keeps there for the next pod. No other container has it."""
GIT_SECRET = "/ratchet/git"
GIT_SCRATCH = "/ratchet/scratch"

PREPARE = ("python3", "-I", "-m", "ratchet_sandbox.runner.prepare")
CLONE = ("python3", "-I", "-m", "ratchet_sandbox.runner.clone")
SERVER = ("python3", "-P", "-m", "ratchet_sandbox.server")
RUNNER = (
    f"{RUNTIME}/lib/ld.so",
    "--library-path",
    f"{RUNTIME}/lib",
    f"{RUNTIME}/bin/python3",
    "-I",
    "-m",
    "ratchet_sandbox.runner",
)
"""The bundled loader starts the bundled Python: the user's image needs neither Python nor glibc."""
