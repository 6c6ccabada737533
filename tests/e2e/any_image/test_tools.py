"""Every tool works in any Linux image: one with Python, one with bash alone, and a bare busybox."""

from __future__ import annotations

import pytest
from ratchet.core.records import Outcome

from tests.e2e import images
from tests.e2e.any_image.conftest import start
from tests.e2e.box import Boxes, shown

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

IMAGES = pytest.mark.parametrize(
    "image", [images.SHELL, images.BASH, images.BUSYBOX], ids=["python", "bash", "busybox"]
)
WHAT_IT_HAS = {
    images.SHELL: "bash python3 git",
    images.BASH: "bash",
    images.BUSYBOX: "",
}


@IMAGES
async def test_the_image_has_what_its_name_says_and_no_more(boxes: Boxes, image: str) -> None:
    box = await start(boxes, image=image)
    found = await box.bash("for name in bash python3 git; do command -v $name; done; true")
    names = " ".join(path.rpartition("/")[2] for path in found.content.split())
    # An empty output is told in words.
    assert names == WHAT_IT_HAS[image] or (not WHAT_IT_HAS[image] and "/" not in found.content)


@IMAGES
async def test_files_are_written_read_edited_and_searched_and_the_patch_has_them(
    boxes: Boxes, image: str
) -> None:
    box = await start(boxes, image=image)
    text = "one\ntwo\nthree\n"
    written = await box.use("write_file", path="src/a.txt", content=text)
    assert written.outcome == Outcome.OK, shown(written)
    block = "<<<<<<< SEARCH\ntwo\n=======\nzwei\n>>>>>>> REPLACE"
    edited = await box.use("search_replace", path="src/a.txt", content=block)
    assert edited.outcome == Outcome.OK, shown(edited)
    read = await box.use("read_file", path="src/a.txt")
    assert read.outcome == Outcome.OK and "zwei" in read.content, shown(read)
    found = await box.use("grep", pattern="zw.i")
    assert found.outcome == Outcome.OK and "src/a.txt:2:" in found.content, shown(found)
    patch = await box.sandbox.patch()
    assert "+++ b/src/a.txt\n" in patch.inline and "+zwei\n" in patch.inline


@IMAGES
async def test_the_shell_keeps_its_state_and_tells_exit_codes(boxes: Boxes, image: str) -> None:
    box = await start(boxes, image=image)
    first = await box.bash("mkdir -p a/b && cd a/b && export COLOUR=red && echo made > file")
    assert first.outcome == Outcome.OK, shown(first)
    second = await box.bash("pwd; echo $COLOUR; cat file; (exit 7)")
    assert second.outcome == Outcome.FAILED and second.exit_code == 7, shown(second)
    assert second.content.startswith("/workspace/a/b\nred\nmade"), shown(second)


@IMAGES
async def test_the_user_has_a_name_and_a_home_that_can_be_written(boxes: Boxes, image: str) -> None:
    box = await start(boxes, image=image)
    who = await box.bash("whoami; echo $USER $LOGNAME; echo kept > ~/note; cat ~/note; id -u")
    assert who.content.split() == ["ratchet", "ratchet", "ratchet", "kept", "10000"], shown(who)


async def test_git_commits_and_ssh_starts_as_that_user(boxes: Boxes) -> None:
    box = await start(boxes)
    done = await box.bash(
        "echo x > x && git add x && git commit -q -m x && git log -1 --format=%an && ssh -G h"
    )
    assert done.outcome == Outcome.OK, shown(done)
    assert "identityfile ~/.ssh" in done.content and "user ratchet" in done.content, shown(done)


@IMAGES
async def test_a_read_only_root_leaves_workspace_and_tmp(boxes: Boxes, image: str) -> None:
    box = await start(boxes, image=image, read_only_root=True)
    done = await box.bash(
        "echo a > /tmp/a && echo b > /workspace/b && cat /tmp/a b;"
        " touch /bin/x /ratchet/x /etc/x || echo refused"
    )
    assert done.content.splitlines()[:2] == ["a", "b"], shown(done)
    assert "refused" in done.content and "Read-only" in done.content, shown(done)


@IMAGES
async def test_the_variables_of_a_class_are_those_of_commands_and_not_of_the_runner(
    boxes: Boxes, image: str
) -> None:
    env = (("PYTHONPATH", "/workspace"), ("PRICE", "$(HOME) 5$$"), ("LANG", "C"), ("A", "a\nb "))
    box = await start(boxes, image=image, env=env)
    told = await box.bash('echo "$PYTHONPATH|$PRICE|$LANG|$A|"; env | grep -c RATCHET_')
    assert told.content.startswith("/workspace|$(HOME) 5$$|C|a\nb |\n0"), shown(told)
    # The runner is process 1.
    own = await box.bash("tr '\\0' '\\n' < /proc/1/environ | grep -E '^(PYTHONPATH|PRICE|A)='")
    assert own.outcome == Outcome.FAILED and "PYTHONPATH" not in own.content, shown(own)
