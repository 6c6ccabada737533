"""The patch, digests and files that the operator asks for."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ratchet_sandbox import protocol
from ratchet_sandbox.runner import workspace
from ratchet_sandbox.runner.workspace import Refused

from tests.unit.sandbox.runners import Bench, make_base

FILES = {"a.txt": "one\ntwo\n", "sub/b.txt": "b\n", "gone.txt": "gone\n"}


@pytest.fixture
def prepared(bench: Bench) -> Bench:
    make_base(bench.config, FILES)
    return bench


async def patch(bench: Bench) -> str:
    answer = await workspace.diff(bench.config, bench.children, "1")
    data = base64.b64decode(answer.patch)
    assert (answer.id, answer.size) == ("1", len(data))
    assert answer.sha256 == hashlib.sha256(data).hexdigest()
    return data.decode()


def applied(bench: Bench, text: str) -> dict[str, bytes]:
    """The files that the base commit and the patch make together."""
    folder = bench.config.runtime.parent / "clone"
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(
        ["git", "clone", "--quiet", bench.config.base, folder], check=True, env=environment
    )
    subprocess.run(
        ["git", "apply", "--binary", "--index", "--allow-empty"], cwd=folder, input=text.encode(),
        check=True, env=environment,
    )  # fmt: skip
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and ".git" not in p.parts
    }


async def test_an_untouched_workspace_has_an_empty_patch(prepared: Bench) -> None:
    assert await patch(prepared) == ""


async def test_the_patch_makes_the_base_into_the_workspace(prepared: Bench) -> None:
    binary = bytes(range(256)) * 10
    prepared.write("a.txt", "one\nTWO\n")
    prepared.write("new/é file.txt", "new\n")
    prepared.write("image.bin", binary)
    (prepared.config.workspace / "gone.txt").unlink()

    assert applied(prepared, await patch(prepared)) == {
        "a.txt": b"one\nTWO\n",
        "sub/b.txt": b"b\n",
        "new/é file.txt": b"new\n",
        "image.bin": binary,
    }


async def test_ignored_files_and_the_runners_own_are_left_out(prepared: Bench) -> None:
    prepared.write(".gitignore", "*.log\n!.ratchet\n")
    prepared.write("x.log", "noise")
    await prepared.bash("yes | head -c 100000")  # leaves a spill file

    assert set(applied(prepared, await patch(prepared))) == {*FILES, ".gitignore"}


TAMPERING = [
    "rm -rf .git",
    "rm -rf .git && git init -q && git add -A && git commit -qm mine",
    "git add -A && git commit -qm mine && git gc -q --prune=now",
    "echo '[core] fsmonitor = touch pwned' >> .git/config",
    "printf '* filter=evil diff=evil\\n' > .git/info/attributes; "
    "git config filter.evil.clean 'touch pwned'; git config diff.evil.textconv 'touch pwned'",
    "rm -rf .git && ln -s /nonexistent .git",
    "chmod 000 .git",
]


@pytest.mark.parametrize("command", TAMPERING)
async def test_what_is_done_to_the_repository_changes_nothing(
    prepared: Bench, command: str
) -> None:
    await prepared.bash(f"echo changed > a.txt; {command}")

    text = await patch(prepared)

    assert "+changed" in text
    assert not (prepared.config.workspace / "pwned").exists()


async def test_a_change_of_the_same_size_in_the_same_second_is_seen(prepared: Bench) -> None:
    prepared.write("a.txt", "ONE\ntwo\n")

    assert "+ONE" in await patch(prepared)


async def test_a_repository_inside_the_workspace_is_taken_as_files(prepared: Bench) -> None:
    await prepared.bash(
        "mkdir crate && cd crate && git init -q && echo target > .gitignore && echo x > main.rs "
        "&& mkdir target && echo y > target/out "
        "&& mkdir deep && cd deep && git init -q && echo z > z && git add z && git commit -qm z"
    )

    made = applied(prepared, await patch(prepared))

    assert set(made) == {*FILES, "crate/.gitignore", "crate/main.rs", "crate/deep/z"}


async def test_a_folder_in_place_of_a_file_and_a_link_are_told(prepared: Bench) -> None:
    await prepared.bash("rm a.txt; mkdir a.txt; echo in > a.txt/in; ln -s sub link; mkfifo fifo")

    text = await patch(prepared)

    assert set(applied(prepared, text)) == {"a.txt/in", "sub/b.txt", "gone.txt"}
    assert "new file mode 120000" in text


async def test_a_patch_that_is_too_large_is_refused_with_its_size(prepared: Bench) -> None:
    prepared.write("big.bin", os.urandom(protocol.PATCH_LIMIT))

    with pytest.raises(Refused) as caught:
        await patch(prepared)

    assert caught.value.code == "too_large"
    assert caught.value.size
    assert caught.value.size > protocol.PATCH_LIMIT


async def test_far_too_much_is_refused_before_it_is_copied(
    prepared: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "CHANGED_LIMIT", 1000)
    prepared.write("big.bin", b"x" * 1001)

    with pytest.raises(Refused, match="over 1000"):
        await patch(prepared)


async def test_nothing_is_left_behind(prepared: Bench) -> None:
    await patch(prepared)

    assert list(prepared.config.scratch.iterdir()) == []


async def test_without_a_base_repository_the_answer_says_so(prepared: Bench) -> None:
    shutil.rmtree(prepared.config.base)

    with pytest.raises(Refused, match="git"):
        await patch(prepared)


def test_digests_are_of_the_bytes_and_none_without_a_file(prepared: Bench) -> None:
    config = prepared.config
    (config.workspace / "link").symlink_to("a.txt")
    expected = "sha256:" + hashlib.sha256(b"one\ntwo\n").hexdigest()

    assert workspace.digest(config, "a.txt") == expected
    assert workspace.digest(config, "link") == expected
    assert workspace.digest(config, str(config.workspace / "a.txt")) == expected
    for path in ("none", "sub", "", "a.txt/x", "\0"):
        assert workspace.digest(config, path) is None


def test_a_file_is_read_whole(prepared: Bench) -> None:
    answer = workspace.read(prepared.config, "7", "sub/b.txt")

    assert (answer.id, base64.b64decode(answer.data)) == ("7", b"b\n")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("none", "not_found"),
        ("a.txt/x", "not_found"),
        ("sub", "bad_path"),
        ("../outside", "bad_path"),
        ("/etc/hostname", "bad_path"),
        ("link-out", "bad_path"),
        ("big", "too_large"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_code(
    prepared: Bench, tmp_path: Path, path: str, code: str
) -> None:
    (tmp_path / "outside").write_text("x")
    (prepared.config.workspace / "link-out").symlink_to(tmp_path / "outside")
    prepared.write("big", b"x" * (protocol.FILE_LIMIT + 1))

    with pytest.raises(Refused) as caught:
        workspace.read(prepared.config, "1", path)

    assert caught.value.code == code
