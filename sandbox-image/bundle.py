"""Collect the self-contained runtime that the runner brings into any image. Run in the build.

    python3 bundle.py ROOT

makes ROOT/opt/ratchet/runtime: this machine's Python and its standard library, git, ripgrep, all
shared libraries they need, and the loader, so that it runs where there is no Python and no glibc.
Programs start as ``lib/ld.so --library-path lib bin/PROGRAM``. Around it ROOT is a small image of
its own, in which ``python3`` runs as usual. Beside it, for the container that clones and never copied
into a sandbox: git's helper for HTTP, ssh, their libraries and the usual certificate authorities.
Nothing else is in the runner image.
"""

import compileall
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final

RUNTIME: Final = "opt/ratchet/runtime"
CLONE: Final = "opt/ratchet/clone"
PROGRAMS: Final = ("git", "rg")
AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
# Parts of the standard library that need a screen, a terminal, a compiler or other databases.
LEFT_OUT: Final = (
    "__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "lib2to3",
    "ensurepip", "config-*", "site-packages", "dist-packages", "pydoc_data", "sitecustomize.py",
    "_tkinter*", "_test*", "_ctypes_test*", "xxlimited*", "LICENSE.txt", "nis.*", "_dbm*", "_gdbm*",
    "_curses*", "readline*",
    # OpenSSL: the runner speaks plain TCP on the loopback address, hashlib has hashes of its own,
    # and asyncio would load all of it, which is a sixth of the runner's memory.
    "_ssl.*", "_hashlib.*",
)  # fmt: skip
ALSO_LOADED: Final = ("libgcc_s.so.1",)
"""Libraries that are opened by name at run time (pthread_exit(3) needs this one)."""
_LINKED: Final = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
CHECK: Final = "import asyncio, ctypes, hashlib, ratchet_sandbox.runner.__main__"


def main(root: Path) -> None:
    """Make the image's root folder, and prove that what is in it runs."""
    runtime = root / RUNTIME
    binaries = {"python3": Path(sys.executable).resolve(), **_programs()}
    (runtime / "bin").mkdir(parents=True)
    (runtime / "lib").mkdir()
    (runtime / "libexec" / "git-core").mkdir(parents=True)
    for name, path in binaries.items():
        shutil.copy2(path, runtime / "bin" / name)
    library = _copy_library(runtime)
    extensions = (library / "lib-dynload").glob("*.so")
    for path in sorted(libraries([*binaries.values(), *extensions])):
        shutil.copy2(path, runtime / "lib" / path.name)
    _add_loader(runtime)
    _copy_package(library)
    # Compiled files count without a look at their source: copying changes its time.
    unchecked = PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(
        library, quiet=1, invalidation_mode=unchecked, stripdir=root, prependdir="/"
    )
    _arrange_image(root, runtime)
    _add_clone(root / CLONE, runtime)
    _prove(runtime)
    _prove_clone(root / CLONE, runtime)


def libraries(files: Iterable[Path]) -> set[Path]:
    """The shared libraries, the loader too, that these files are linked with."""
    found: set[Path] = set()
    for file in files:
        answer = subprocess.run(["ldd", file], capture_output=True, text=True, check=True)
        found |= {Path(path) for path in linked(answer.stdout)}
    for name in ALSO_LOADED:
        found |= {folder / name for folder in {p.parent for p in found} if (folder / name).exists()}
    return found


def linked(text: str) -> list[str]:
    """The paths in what ldd(1) prints."""
    return _LINKED.findall(text)


def _programs() -> dict[str, Path]:
    found = {name: shutil.which(name) for name in PROGRAMS}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise SystemExit(f"bundle.py: install {', '.join(missing)} in the build's image first")
    return {name: Path(path).resolve() for name, path in found.items() if path}


def _copy_library(runtime: Path) -> Path:
    source = Path(sysconfig.get_path("stdlib"))
    target = runtime / "lib" / source.name
    shutil.copytree(
        source, target, symlinks=False, ignore=shutil.ignore_patterns(*LEFT_OUT),
        ignore_dangling_symlinks=True,
    )  # fmt: skip
    return target


def _copy_package(library: Path) -> None:
    source = Path(__file__).parent / "ratchet_sandbox"
    target = library / "ratchet_sandbox"
    target.mkdir()
    for module in source.glob("*.py"):
        shutil.copy2(module, target / module.name)
    shutil.copytree(
        source / "runner", target / "runner", ignore=shutil.ignore_patterns("__pycache__")
    )


def _add_loader(runtime: Path) -> None:
    """The loader under a name that is the same on every machine."""
    loader = next(iter(sorted(_loaders(runtime / "lib"))), None)
    if loader is None:
        raise SystemExit("bundle.py: found no ld-linux loader among the libraries")
    (runtime / "lib" / "ld.so").symlink_to(loader.name)


def _loaders(folder: Path) -> Iterator[Path]:
    return folder.glob("ld-linux*.so.*")


def _add_clone(clone: Path, runtime: Path) -> None:
    """What git needs for remotes; of the libraries those that the runtime has not."""
    helpers = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True)
    remote = Path(helpers.stdout.strip(), "git-remote-http").resolve()
    ssh = Path(shutil.which("ssh") or "/usr/bin/ssh")
    for folder in ("bin", "lib", "libexec/git-core"):
        (clone / folder).mkdir(parents=True)
    shutil.copy2(remote, clone / "libexec/git-core/git-remote-http")
    (clone / "libexec/git-core/git-remote-https").symlink_to("git-remote-http")
    shutil.copy2(ssh, clone / "bin/ssh")
    shutil.copy2(AUTHORITIES, clone / AUTHORITIES.name)
    for path in sorted(libraries([remote, ssh])):
        if not (runtime / "lib" / path.name).exists():
            shutil.copy2(path, clone / "lib" / path.name)


def _arrange_image(root: Path, runtime: Path) -> None:
    """What the image needs so that ``python3`` and the loader are where everybody expects them."""
    for name in ("lib", "lib64"):
        (root / name).symlink_to(f"/{RUNTIME}/lib")
    (root / "usr/bin").mkdir(parents=True)
    for name in ("python3", *PROGRAMS):
        (root / "usr/bin" / name).symlink_to(f"/{RUNTIME}/bin/{name}")
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/:/\nratchet:x:10000:10000::/tmp:/\n")
    (root / "etc/group").write_text("root:x:0:\nratchet:x:10000:\n")
    (root / "tmp").mkdir(mode=0o1777)
    (root / "tmp").chmod(0o1777)


def _prove(runtime: Path) -> None:
    """Run everything the way it will be run, with nothing of this machine's environment."""
    loader = [str(runtime / "lib/ld.so"), "--library-path", str(runtime / "lib")]
    for words in (["python3", "-I", "-c", CHECK], ["git", "--version"], ["rg", "--version"]):
        program, *rest = words
        subprocess.run([*loader, str(runtime / "bin" / program), *rest], env={}, check=True)


def _prove_clone(clone: Path, runtime: Path) -> None:
    """Run both programs as the container does; git's helper says no more than how it is called."""
    places = f"{clone / 'lib'}:{runtime / 'lib'}"
    loader = [str(runtime / "lib/ld.so"), "--library-path", places]
    subprocess.run([*loader, str(clone / "bin/ssh"), "-V"], env={}, check=True)
    helper = [*loader, str(clone / "libexec/git-core/git-remote-https")]
    done = subprocess.run(helper, env={}, capture_output=True, text=True, check=False)
    if "usage" not in done.stderr:
        raise SystemExit(f"bundle.py: git-remote-https does not run: {done.stderr}")


if __name__ == "__main__":
    os.umask(0o022)
    main(Path(sys.argv[1]))
