"""What an image is built from, and a digest of it, so that nothing is built twice."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.cluster.folders import digest

ALWAYS_LEFT_OUT = frozenset({".git", "__pycache__"})


def ignore_file(dockerfile: Path, context: Path) -> Path | None:
    """The list of what stays out of the context: beside the Dockerfile, else in the context."""
    own = dockerfile.with_name(dockerfile.name + ".dockerignore")
    for candidate in (own, context / ".dockerignore"):
        if candidate.is_file():
            return candidate
    return None


def _expression(pattern: str) -> str:
    """A pattern of a .dockerignore file as a regular expression over a whole relative path."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    return "".join(words.get(part, re.escape(part)) for part in parts) + "(?:/.*)?"


class Ignored:
    """Which paths a .dockerignore leaves out: the last pattern that fits decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        self._rules = [
            (re.compile(_expression(line.removeprefix("!"))), not line.startswith("!"))
            for line in lines
            if line and not line.startswith("#")
        ]
        self._final = all(leaves_out for _, leaves_out in self._rules)

    def leaves_out(self, path: str) -> bool:
        """Whether the file at this relative path stays out of the context."""
        out = False
        for expression, leaves_out in self._rules:
            if expression.fullmatch(path):
                out = leaves_out
        return out

    def prunes(self, folder: str) -> bool:
        """Whether nothing below a folder can come in."""
        return self._final and self.leaves_out(folder)


def files(context: Path, ignored: Ignored) -> Iterator[Path]:
    """Files and links of the context in a fixed order."""
    for folder, folders, names in os.walk(context):
        here = Path(folder).relative_to(context)
        folders[:] = sorted(
            name
            for name in folders
            if name not in ALWAYS_LEFT_OUT and not ignored.prunes((here / name).as_posix())
        )
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted([*names, *links]):
            if not ignored.leaves_out((here / name).as_posix()):
                yield Path(folder) / name


def content_digest(dockerfile: Path, context: Path, parameters: Sequence[str]) -> str:
    """Digest of Dockerfile, context (names, contents, execute bits) and build parameters."""
    listed = ignore_file(dockerfile, context)
    ignored = Ignored(listed.read_text() if listed is not None else "")
    parts: list[str | bytes] = [dockerfile.read_bytes(), *parameters]
    for file in files(context, ignored):
        parts.append(file.relative_to(context).as_posix())
        if file.is_symlink():
            parts.append(os.readlink(file))
        elif file.is_file():
            parts += [str(bool(file.stat().st_mode & 0o100)), file.read_bytes()]
    return digest(*parts)
