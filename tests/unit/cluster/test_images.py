"""Images are named, digested and described without building one."""

import io
import tarfile
from pathlib import Path

import pytest

from tests.cluster import ClusterError, build_context, given, pip_settings
from tests.cluster.build_context import Ignored
from tests.cluster.local import images


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a")
    (tmp_path / "notes.md").write_text("n")
    return tmp_path


def digest(context: Path, *parameters: str) -> str:
    return build_context.content_digest(context / "Dockerfile", context, parameters)


def test_a_changed_file_or_parameter_means_another_image(context: Path) -> None:
    before = digest(context)
    assert digest(context) == before
    assert digest(context, "BASE=x") != before
    (context / "src" / "a.py").write_text("b")
    assert digest(context) != before


def test_a_file_that_became_executable_means_another_image(context: Path) -> None:
    before = digest(context)
    (context / "src" / "a.py").chmod(0o755)
    assert digest(context) != before


def test_what_is_ignored_changes_nothing(context: Path) -> None:
    (context / ".dockerignore").write_text("*\n!src\n!Dockerfile\n")
    before = digest(context)
    (context / "notes.md").write_text("other")
    (context / ".git").mkdir()
    (context / ".git" / "HEAD").write_text("x")
    assert digest(context) == before
    (context / "src" / "b.py").write_text("b")
    assert digest(context) != before


@pytest.mark.parametrize(
    ("patterns", "path", "out"),
    [
        ("build", "build/x/y", True),
        ("build", "src/build", False),
        ("**/__pycache__", "a/b/__pycache__/c.pyc", True),
        ("*.md\n!README.md", "README.md", False),
        ("*.md\n!README.md", "NOTES.md", True),
        ("*.md", "docs/NOTES.md", False),
        ("# a comment\n\n", "anything", False),
        ("*\n!operator/**", "operator/ratchet/x.py", False),
    ],
)
def test_the_last_pattern_that_fits_decides(patterns: str, path: str, out: bool) -> None:
    assert Ignored(patterns).leaves_out(path) is out


def test_a_folder_is_skipped_only_if_nothing_below_it_is_taken_back() -> None:
    assert Ignored("build").prunes("build")
    assert not Ignored("*\n!build/keep").prunes("build")


def test_an_archive_lists_its_images_by_their_full_names(tmp_path: Path) -> None:
    tar = tmp_path / "pause.tar"
    tar.write_bytes(images.archive("pause:1", {"pause": b"x"}, ["/pause"]))
    assert images.contents(tar) == {"docker.io/library/pause:1": "config.json"}


def test_a_file_that_is_no_archive_is_refused_by_its_name(tmp_path: Path) -> None:
    other = tmp_path / "other.tar"
    other.write_text("no")
    with pytest.raises(ClusterError, match=r"other\.tar is no docker-archive"):
        images.contents(other)
    empty = io.BytesIO()
    with tarfile.open(fileobj=empty, mode="w"):
        pass
    other.write_bytes(empty.getvalue())
    with pytest.raises(ClusterError, match="no docker-archive"):
        images.contents(other)


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("a:1", "docker.io/library/a:1"),
        ("me/a:1", "docker.io/me/a:1"),
        ("localhost/a:1", "localhost/a:1"),
        ("r.example:5000/a:1", "r.example:5000/a:1"),
    ],
)
def test_short_names_mean_what_containerd_makes_of_them(short: str, full: str) -> None:
    assert images.canonical(short) == full


def test_an_image_is_pushed_below_the_given_registry() -> None:
    assert given.pushed_name("r.example/team/", "localhost/ratchet:1") == "r.example/team/ratchet:1"
    with pytest.raises(ClusterError, match="REGISTRY"):
        given.pushed_name("", "a:1")


def test_pips_settings_are_lent_with_the_certificates_of_the_build() -> None:
    text = pip_settings.merge(
        ["[global]\ntimeout = 3\ncert = /host/ca.pem\n"],
        {"PIP_INDEX_URL": "https://index.example/simple", "PIP_CERT": "/host/ca.pem", "HOME": "/"},
        bundle=True,
    )
    assert "index-url = https://index.example/simple" in text
    assert "timeout = 3" in text
    assert "/host" not in text
    assert f"cert = {pip_settings.BUNDLE}" in text
