"""Write what follows from the API's types: ``python -m ratchet.api.generate [--check]``.

Run in the root of the repository. It writes ``crds/*.yaml``, ``charts/ratchet-crds/templates/*``
and ``docs/api.md``, and removes files that no kind accounts for. With ``--check`` nothing is
written: it names the files that differ and ends with status 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from ratchet.api.base import Resource
from ratchet.api.crd import RESOURCES, crd
from ratchet.api.docs import api_page

CRDS = Path("crds")
CHART = Path("charts/ratchet-crds")
TEMPLATES = CHART / "templates"
PAGE = Path("docs/api.md")

_NOTE = "# Written by `python -m ratchet.api.generate`; edit operator/ratchet/api instead.\n"
_KEEP = """\
  {{- if .Values.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""


def wanted() -> dict[Path, str]:
    """Every generated file, relative to the root of the repository, with its text."""
    files = {PAGE: api_page()}
    for resource in RESOURCES:
        text = crd_yaml(resource)
        name = f"{resource.KIND.plural}.yaml"
        files[CRDS / name] = _NOTE + text
        files[TEMPLATES / name] = _NOTE + templated(text)
    return files


def crd_yaml(resource: type[Resource]) -> str:
    """The CRD of a kind as YAML."""
    # The round trip through JSON unshares what pydantic shares, which YAML would write as anchors.
    unshared = json.loads(json.dumps(crd(resource)))
    return yaml.dump(unshared, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def templated(text: str) -> str:
    """A CRD as a Helm template: kept at uninstall where the values say so."""
    if "{{" in text:
        raise ValueError("a description or rule holds '{{', which Helm would take for a template")
    head, rest = text.split("\nspec:\n", 1)
    return f"{head}\n{_KEEP}spec:\n{rest}"


def drifted(root: Path, files: Mapping[Path, str]) -> list[Path]:
    """Paths below ``root`` that are missing, differ from ``files``, or should not be there."""
    different = [path for path, text in files.items() if _read(root / path) != text]
    return sorted([*different, *_strays(root, files)])


def write(root: Path, files: Mapping[Path, str]) -> list[Path]:
    """Bring ``root`` in line with ``files``; gives the paths that were changed or removed."""
    changed = drifted(root, files)
    for path in changed:
        target = root / path
        if path not in files:
            target.unlink()
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(files[path], encoding="utf-8")
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ratchet.api.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on drift")
    parser.add_argument("--root", type=Path, default=Path(), help="root of the repository")
    options = parser.parse_args(arguments)
    if not (options.root / "pyproject.toml").exists():
        parser.error(f"{options.root.resolve()} is not the root of the repository; give --root")
    if not options.check:
        for path in write(options.root, wanted()):
            print(f"wrote {path}" if (options.root / path).exists() else f"removed {path}")
        return 0
    drift = drifted(options.root, wanted())
    for path in drift:
        print(f"{path} is out of date")
    if drift:
        print("run `make generate` and commit the result", file=sys.stderr)
    return 1 if drift else 0


class _Dumper(yaml.SafeDumper):
    """YAML that Go reads as Python does: Go takes a bare N or y for a boolean."""


def _quote_booleans(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if text in ("y", "Y", "n", "N") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quote_booleans)


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _strays(root: Path, files: Mapping[Path, str]) -> list[Path]:
    there = [p.relative_to(root) for d in (CRDS, TEMPLATES) for p in (root / d).glob("*.yaml")]
    return [path for path in there if path not in files]


if __name__ == "__main__":
    sys.exit(main())
