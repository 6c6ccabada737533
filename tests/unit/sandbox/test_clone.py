"""The container that clones: what it brings, what it says when it cannot, what it gives away."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ratchet_sandbox.runner import clone as cloning
from ratchet_sandbox.runner import workspace
from ratchet_sandbox.runner.base import NotPrepared
from ratchet_sandbox.runner.clone import Bounds, clone
from ratchet_sandbox.runner.config import Config
from ratchet_sandbox.runner.prepare import prepare
from ratchet_sandbox.runner.processes import Children
from ratchet_sandbox.runner.remote import CloneFailed, Source, Tools

from tests.unit.sandbox.gitserver import (
    GitServer,
    commit,
    git,
    make_authority,
    make_repository,
    serve,
)
from tests.unit.sandbox.runners import make_config, unmark

FILES: dict[str, bytes | None] = {
    "a.txt": b"one\n", "sub/b.bin": bytes(range(256)), ".gitignore": b"*.log\n",
}  # fmt: skip
WORD = "s3cret-w0rd"
HELPERS = Path(subprocess.check_output(["git", "--exec-path"], text=True).strip())


@dataclass
class Place:
    """A git server, a repository on it, and a sandbox's folders."""

    server: GitServer
    repository: Path
    config: Config
    secret: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, str]] = field(default_factory=list)
    ssh: Path = Path("/usr/bin/ssh")

    def clone(
        self, ref: str = "", *, url: str = "", depth: int | None = None, size: int = 10**8,
        seconds: float = 60,
    ) -> str | None:  # fmt: skip
        folder = self.config.runtime.parent
        secret = folder / "secret"
        secret.mkdir(exist_ok=True)
        for name, value in self.secret.items():
            (secret / name).write_text(value)
        return clone(
            self.config,
            Source(url or self.server.url("x.git"), ref, depth, "git-cred" if self.secret else ""),
            runtime=self.config.runtime,
            tools=Tools(helpers=HELPERS, ssh=self.ssh, path=os.environ["PATH"]),
            secret=secret,
            bounds=Bounds(size, seconds, patience_s=0),
        )

    def prepare(self, task_uid: str = "uid-1") -> None:
        folder = self.config.runtime.parent
        for name in ("files", "bundled"):
            (folder / name).mkdir(exist_ok=True)
        index = []
        for number, (path, content) in enumerate(self.files):
            (folder / "files" / f"f{number}").write_text(content)
            index.append({"path": path, "source": f"f{number}", "mode": "0755"})
        (folder / "files/index.json").write_text(json.dumps(index))
        prepare(
            self.config, bundled=folder / "bundled", start_files=folder / "files",
            task_uid=task_uid, cloned=True,
        )  # fmt: skip

    async def patch(self) -> tuple[bytes, str, str]:
        """The patch, its base commit, and the commit that was cloned."""
        async with Children() as children:
            answer = await workspace.diff(self.config, children, "1")
        return base64.b64decode(answer.patch), answer.base, answer.upstream


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    repository = make_repository(tmp_path)
    commit(repository, {"a.txt": b"zero\n"})
    commit(repository, FILES)
    with serve(GitServer(tmp_path)) as server:
        yield Place(server, repository, make_config(tmp_path / "pod"))


# --- what it brings ------------------------------------------------------------------------------


def test_the_default_branch_is_checked_out_with_its_history(place: Place) -> None:
    tip = git(place.repository, "rev-parse", "trunk")
    assert place.clone() == tip
    place.prepare()

    workspace = place.config.workspace
    assert (workspace / "sub/b.bin").read_bytes() == FILES["sub/b.bin"]
    assert git(workspace, "status", "--porcelain", "--branch") == "## trunk...origin/trunk"
    assert git(workspace, "rev-list", "--count", "HEAD") == "2"
    assert git(place.config.base, "rev-parse", "HEAD") == tip
    assert git(place.config.base, "fsck", "--full") == ""


async def test_an_untouched_clone_has_an_empty_patch_against_the_cloned_commit(
    place: Place,
) -> None:
    tip = place.clone()
    place.prepare()
    assert await place.patch() == (b"", tip, tip)


async def test_the_patch_applies_to_a_clone_of_the_same_commit(
    place: Place, tmp_path: Path
) -> None:
    tip = place.clone()
    place.prepare()
    work = place.config.workspace
    (work / "a.txt").unlink()
    (work / "sub/b.bin").write_bytes(b"\0\1\2" * 99)
    (work / "new").mkdir()
    (work / os.fsdecode(b"new/\xff\xfe.txt")).write_text("not UTF-8 in its name\n")
    (work / "run.sh").write_text("echo\n")
    (work / "run.sh").chmod(0o755)
    (work / "link").symlink_to("sub")
    (work / "x.log").write_text("ignored")

    data, base, _ = await place.patch()
    (tmp_path / "p").write_bytes(data)
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(place.repository), str(other))
    git(other, "checkout", "--quiet", base)
    git(other, "apply", "--binary", "--index", str(tmp_path / "p"))

    assert base == tip
    assert not (other / "a.txt").exists() and not (other / "x.log").exists()
    assert (other / "sub/b.bin").read_bytes() == b"\0\1\2" * 99
    assert (other / os.fsdecode(b"new/\xff\xfe.txt")).read_text() == "not UTF-8 in its name\n"
    assert os.access(other / "run.sh", os.X_OK)
    assert (other / "link").readlink() == Path("sub")


def test_branches_tags_and_commits_are_found_by_name(place: Place) -> None:
    first = git(place.repository, "rev-list", "--max-parents=0", "trunk")
    side = commit(place.repository, {"side": b"x"}, "team/side")
    git(place.repository, "tag", "-a", "-m", "t", "v1", first)
    for ref, expected in (
        ("team/side", side),
        ("v1", first),
        (first, first),
        ("refs/tags/v1", first),
    ):
        assert place.clone(ref) == expected, ref


def test_a_commit_that_is_no_tip_is_found_where_the_server_gives_only_tips(place: Place) -> None:
    git(place.repository, "config", "protocol.version", "0")
    git(place.repository, "config", "uploadpack.allowAnySHA1InWant", "false")
    first = git(place.repository, "rev-list", "--max-parents=0", "trunk")
    assert place.clone(first, depth=1) == first


def test_a_branch_wins_over_a_tag_of_the_same_name(place: Place) -> None:
    first = git(place.repository, "rev-list", "--max-parents=0", "trunk")
    git(place.repository, "tag", "trunk", first)
    assert place.clone("trunk") == git(place.repository, "rev-parse", "refs/heads/trunk")


async def test_depth_leaves_history_out_and_the_patch_is_the_same(place: Place) -> None:
    place.clone(depth=1)
    place.prepare()
    assert git(place.config.workspace, "rev-list", "--count", "HEAD") == "1"
    (place.config.workspace / "a.txt").write_text("two\n")
    assert b"+two" in (await place.patch())[0]


async def test_files_are_put_on_top_and_are_no_part_of_the_patch(place: Place) -> None:
    place.files = [("sub/new.sh", "echo\n"), ("a.txt", "ours\n")]
    tip = place.clone()
    place.prepare()

    data, base, upstream = await place.patch()
    assert data == b"" and upstream == tip and base != tip
    assert (place.config.workspace / "a.txt").read_text() == "ours\n"
    assert git(place.config.workspace, "status", "--porcelain") == ""
    assert git(place.config.workspace, "rev-parse", "HEAD~1") == tip
    assert git(place.config.base, "ls-tree", "HEAD", "sub/new.sh").startswith("100755")


@pytest.mark.parametrize("path", ["link/a.py", "a.txt/b", "sub"])
def test_a_file_is_never_put_through_a_link_or_over_a_folder(place: Place, path: str) -> None:
    outside = place.config.runtime.parent / "outside"
    outside.mkdir()
    work = place.repository.parent / "work-x.git"
    (work / "link").symlink_to(outside)
    commit(place.repository, {})
    place.clone()
    place.files = [(path, "x")]
    with pytest.raises(NotPrepared, match="cannot be put into the clone"):
        place.prepare()
    assert not list(outside.iterdir())


# --- once only -----------------------------------------------------------------------------------


async def test_a_prepared_workspace_is_neither_cloned_nor_touched_again(place: Place) -> None:
    tip = place.clone()
    place.prepare()
    (place.config.workspace / "a.txt").write_text("work\n")
    commit(place.repository, {"a.txt": b"moved on\n"})

    assert place.clone() is None
    place.prepare()

    assert (place.config.workspace / "a.txt").read_text() == "work\n"
    assert (await place.patch())[1] == tip


async def test_an_interrupted_preparation_is_done_again_with_a_new_clone(place: Place) -> None:
    commit(place.repository, {"soon-gone": b"x"})
    place.clone()
    place.prepare()
    unmark(place.config)
    (place.config.private / "cloning-left").mkdir()
    tip = commit(place.repository, {"soon-gone": None})

    assert place.clone() == tip
    place.prepare()

    assert await place.patch() == (b"", tip, tip)
    assert not (place.config.workspace / "soon-gone").exists()
    assert not (place.config.private / "cloning-left").exists()


def test_nothing_is_prepared_without_the_clone(place: Place) -> None:
    with pytest.raises(NotPrepared, match="no clone"):
        place.prepare()


# --- what it says --------------------------------------------------------------------------------


def failure(place: Place, *arguments: str, lasting: bool = True, **options: object) -> str:
    with pytest.raises(CloneFailed) as caught:
        place.clone(*arguments, **options)  # type: ignore[arg-type]
    assert caught.value.lasting is lasting, str(caught.value)
    assert not place.config.clone.exists()
    return str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["file:///etc", "ext::sh -c true", "/etc", "http://u:p@127.0.0.1/x", "http://u@127.0.0.1/x",
     "ssh://-oProxyCommand=x/y", "http://[::1", "git://127.0.0.1/x", "https:///x"],
)  # fmt: skip
def test_a_url_of_another_kind_is_refused(place: Place, url: str) -> None:
    assert "is no URL of a repository" in failure(place, url=url)


def test_an_unknown_ref_is_named(place: Place) -> None:
    assert "no branch or tag 'nowhere'" in failure(place, "nowhere")
    assert f"no commit {'0' * 40}" in failure(place, "0" * 40)


def test_an_empty_repository_says_so(place: Place) -> None:
    make_repository(place.repository.parent, "empty.git")
    assert "no default branch" in failure(place, url=place.server.url("empty.git"))


def test_a_repository_that_is_not_there_says_so(place: Place) -> None:
    assert "no such repository" in failure(place, url=place.server.url("gone.git"))


def test_a_server_that_is_not_there_may_come_back(place: Place) -> None:
    text = failure(place, url="http://127.0.0.1:1/x.git", lasting=False)
    assert "127.0.0.1 port 1 cannot be connected to (Connection refused)" in text
    assert "egress" in text
    assert "trouble" in failure(place, url=place.server.url("broken/x.git"), lasting=False)


def test_a_name_that_cannot_be_resolved_says_what_gives_dns(place: Place) -> None:
    text = failure(place, url="http://no-such-name.invalid/x.git", lasting=False)
    assert "cannot be resolved" in text and "egress rule" in text


def test_a_repository_over_its_bounds_is_refused(place: Place) -> None:
    commit(place.repository, {"zeros": bytes(3_000_000)})  # small as a pack, large as a file
    assert "history and files have" in failure(place, size=1_000_000)
    commit(place.repository, {"noise": os.urandom(2_000_000)})
    text = failure(place, size=1_000_000)
    assert "its history does not fit" in text and "spec.git.depth" in text


def test_a_clone_that_takes_too_long_is_ended(place: Place) -> None:
    url = place.server.url("stalled/x.git")
    assert "longer than 1 s" in failure(place, url=url, seconds=1, lasting=False)


def test_a_repository_with_our_own_folder_is_refused(place: Place) -> None:
    commit(place.repository, {".ratchet/task": b"uid-1"})
    assert "has a .ratchet" in failure(place)


# --- the credential ------------------------------------------------------------------------------


def everything_under(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


@pytest.mark.parametrize(
    ("secret", "user"),
    [({"username": "me", "password": WORD}, "me"), ({"token": WORD + "\n"}, "x-access-token")],
)
def test_a_password_is_sent_and_stays_nowhere(
    place: Place, secret: dict[str, str], user: str, tmp_path: Path
) -> None:
    place.server.user, place.server.password = user, WORD
    place.secret = secret
    assert place.clone()
    place.prepare()
    assert place.server.sent[-1] == f"{user}:{WORD}"
    assert WORD.encode() not in everything_under(place.config.workspace)
    assert WORD.encode() not in everything_under(place.config.runtime)


def test_a_wrong_password_is_told_without_it(place: Place) -> None:
    place.server.user, place.server.password = "me", "another"
    place.secret = {"username": "me", "password": WORD}
    text = failure(place)
    assert "refuses the credential" in text and WORD not in text


def test_a_password_that_is_asked_for_and_not_given_says_so(place: Place) -> None:
    place.server.password = WORD
    assert "asks for one: check the Secret" in failure(place)


def test_a_password_is_never_taken_to_where_a_server_sends_us(place: Place) -> None:
    assert place.clone(url=place.server.url("moved/x.git"))
    place.secret = {"token": WORD}
    assert "sends us elsewhere" in failure(place, url=place.server.url("moved/x.git"))
    assert place.server.sent == []


@pytest.mark.parametrize(
    ("url", "secret", "says"),
    [
        ("http://127.0.0.1/x", {"username": "me"}, "neither password nor token"),
        ("ssh://git@127.0.0.1/x", {"ssh-privatekey": "k"}, "has no known_hosts"),
        ("ssh://git@127.0.0.1/x", {}, "names no ssh-privatekey and no known_hosts"),
    ],
)
def test_a_secret_without_what_the_protocol_needs_is_named(
    place: Place, url: str, secret: dict[str, str], says: str
) -> None:
    place.secret = secret
    assert says in failure(place, url=url)


def test_a_certificate_is_trusted_by_the_authority_in_the_secret_and_not_without(
    place: Place, tmp_path: Path
) -> None:
    file, authority = make_authority(tmp_path)
    with serve(GitServer(place.server.root, tls=file)) as server:
        text = failure(place, url=server.url("x.git"))
        assert "certificate is not trusted: put its authority into ca.crt" in text
        place.secret = {"ca.crt": authority}
        assert place.clone(url=server.url("x.git"))


SSH = """#!{python}
import os, sys
words = sys.argv[1:]
options = [word for flag, word in zip(words, words[1:]) if flag == "-o"]
key = words[words.index("-i") + 1]
known = next(o for o in options if o.startswith("UserKnownHostsFile=")).split("=", 1)[1]
if "{host}" not in open(known).read():
    sys.exit("Host key verification failed.")
if open(key).read() != "the key\\n" or os.stat(key).st_mode & 0o077:
    sys.exit("git@127.0.0.1: Permission denied (publickey).")
assert "StrictHostKeyChecking=yes" in options and "BatchMode=yes" in options
os.environ["GIT_CONFIG_COUNT"] = "1"
os.environ["GIT_CONFIG_KEY_0"], os.environ["GIT_CONFIG_VALUE_0"] = "safe.directory", "*"
os.execvp("sh", ["sh", "-c", words[-1]])
"""


@pytest.fixture
def over_ssh(place: Place, tmp_path: Path) -> Place:
    """The same repository over a program that behaves as ssh does."""
    place.ssh = tmp_path / "fake-ssh"
    place.ssh.write_text(SSH.format(python=sys.executable, host="[127.0.0.1]:"))
    place.ssh.chmod(0o755)
    place.secret = {"ssh-privatekey": "the key", "known_hosts": "[127.0.0.1]:22 ssh-ed25519 AAAA"}
    return place


def ssh_url(place: Place) -> str:
    return f"ssh://git@127.0.0.1:{place.server.port}{place.repository}"


def test_ssh_gets_the_key_and_the_known_hosts_and_nothing_else(over_ssh: Place) -> None:
    assert over_ssh.clone(url=ssh_url(over_ssh))
    assert b"the key" not in everything_under(over_ssh.config.workspace)


def test_an_unknown_host_key_and_a_refused_key_are_told_apart(over_ssh: Place) -> None:
    over_ssh.secret["known_hosts"] = "example.com ssh-ed25519 AAAA"
    assert "host key is not in known_hosts" in failure(over_ssh, url=ssh_url(over_ssh))
    over_ssh.secret |= {"known_hosts": "[127.0.0.1]:22 x", "ssh-privatekey": "another"}
    assert "refuses the credential" in failure(over_ssh, url=ssh_url(over_ssh))


# --- hostile repositories ------------------------------------------------------------------------


def test_nothing_of_a_repository_is_run(place: Place, tmp_path: Path) -> None:
    flag = tmp_path / "pwned"
    evil = f"#!/bin/sh\ntouch {flag}\n".encode()
    commit(place.repository, {
        ".gitattributes": b"* filter=lfs diff=evil\n*.sub text eol=crlf\n",
        ".lfsconfig": b"[lfs]\nurl = http://127.0.0.1:1/\n",
        ".gitmodules": b'[submodule "s"]\npath = s\nurl = ext::touch ' + str(flag).encode() + b"\n",
        ".githooks/post-checkout": evil,
        "hooks/post-checkout": evil,
    })  # fmt: skip
    hooks = place.repository / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "post-checkout").write_bytes(evil)
    (hooks / "post-checkout").chmod(0o755)
    place.clone()
    place.prepare()
    assert not flag.exists()
    assert not list((place.config.workspace / ".git").glob("hooks/*"))
    assert git(place.config.workspace, "status", "--porcelain") == ""


async def test_a_submodule_is_an_empty_folder(place: Place) -> None:
    work = place.repository.parent / "work-x.git"
    tip = git(place.repository, "rev-parse", "trunk")
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{tip},vendored")
    git(work, "commit", "--quiet", "-m", "submodule")
    git(work, "push", "--quiet", "origin", "trunk")
    place.clone()
    place.prepare()
    assert not list((place.config.workspace / "vendored").iterdir())
    assert (await place.patch())[0] == b""


# --- the program ---------------------------------------------------------------------------------


def test_the_program_ends_with_one_line_and_a_code_that_says_if_it_lasts(
    place: Place, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "libexec").mkdir()
    (tmp_path / "libexec/git-core").symlink_to(HELPERS)
    words = [
        f"--tools={tmp_path}", f"--bundle={place.config.runtime}", "--bytes=100000000",
        f"--workspace={place.config.workspace}", f"--url={place.server.url('x.git')}",
    ]  # fmt: skip

    assert cloning.main([*words, "--ref=nowhere"]) == cloning.LASTING
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "no branch or tag 'nowhere'" in told
    assert cloning.main([*words, f"--url={place.server.url('broken/x.git')}"]) == cloning.PASSING
    assert cloning.main([*words, "--ref=trunk", "--depth=1"]) == 0
    assert "fetched commit" in capsys.readouterr().out
