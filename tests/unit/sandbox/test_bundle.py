"""What the runtime's bundle takes along."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from ratchet_sandbox.runner import bundle as programs

SCRIPT = Path(__file__).parents[3] / "sandbox-image" / "bundle.py"


@pytest.fixture(scope="module")
def bundle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundle", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_libraries_and_loader_are_read_from_ldd(bundle: ModuleType) -> None:
    text = (
        "\tlinux-vdso.so.1 (0x00007ffd)\n"
        "\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f33)\n"
        "\tlibgone.so => not found\n"
        "\t/lib64/ld-linux-x86-64.so.2 (0x00007f44)\n"
    )

    assert bundle.linked(text) == [
        "/lib/x86_64-linux-gnu/libz.so.1",
        "/lib64/ld-linux-x86-64.so.2",
    ]


def test_a_program_runs_through_the_bundles_own_loader(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "bin/git").touch()

    assert programs.command(tmp_path, "git") == [f"{tmp_path}/bin/git"]
    (tmp_path / "lib/ld.so").touch()
    assert programs.command(tmp_path, "git") == [
        f"{tmp_path}/lib/ld.so", "--library-path", f"{tmp_path}/lib", f"{tmp_path}/bin/git",
    ]  # fmt: skip
    assert programs.command(tmp_path, "rg") is None
