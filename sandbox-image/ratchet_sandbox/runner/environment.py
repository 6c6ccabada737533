"""The environment of the model's commands: an allowlist, so that nothing of the pod leaks."""

from collections.abc import Mapping
from typing import Final

MARKER: Final = "SANDBOX_SHELL"
"""Set in every process of the shell, so that it is found again wherever it went."""

ADDED: Final = "RATCHET_ENV_"
"""In the container's environment the variables of the task's SandboxClass start with this, so that
none of them reaches the runner's own Python. They are handed on without it."""

_DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_FIXED: Final[Mapping[str, str]] = {
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "CI": "true",
    "NO_COLOR": "1",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_EDITOR": "true",
    "EDITOR": "true",
    "LESS": "-FX",
    "DEBIAN_FRONTEND": "noninteractive",
    "PIP_NO_INPUT": "1",
    "PYTHONUNBUFFERED": "1",
    "USER": "ratchet",
    "LOGNAME": "ratchet",
}

_FROM_IMAGE: Final = frozenset({
    "PATH", "TZ", "LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH", "PKG_CONFIG_PATH",
    "JAVA_HOME", "JAVA_VERSION", "MAVEN_HOME", "GRADLE_HOME", "GOPATH", "GOROOT", "GOTOOLCHAIN",
    "CARGO_HOME", "RUSTUP_HOME", "RUST_VERSION", "NODE_VERSION", "NODE_PATH", "YARN_VERSION",
    "NVM_DIR", "PNPM_HOME", "GEM_HOME", "BUNDLE_PATH", "RUBY_VERSION", "PYTHON_VERSION",
    "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_EXE", "POETRY_HOME",
    "DOTNET_ROOT", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
})  # fmt: skip
"""Variables that images set for their tool chains; they are handed on as they are."""


def shell_environment(outer: Mapping[str, str], *, home: str, marker: str) -> dict[str, str]:
    """What the shell starts with, out of the environment of the runner's container."""
    taken = {name: outer[name] for name in _FROM_IMAGE if outer.get(name)}
    added = {
        name.removeprefix(ADDED): value for name, value in outer.items() if name.startswith(ADDED)
    }
    return {"PATH": _DEFAULT_PATH, **taken, **_FIXED, "HOME": home, **added, MARKER: marker}
