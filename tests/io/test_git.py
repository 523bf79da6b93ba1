"""Reading a repository by git alone: what HEAD left, what changed, and bytes as they were committed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from board_repository import Clone, needs_git, new_clone

from odebench.errors import UsageError
from odebench.io.files import FileError
from odebench.io.git import (
    Blob,
    FileChange,
    can_be_written,
    changes,
    commit_of,
    contents,
    files_in,
    span_of,
    write_files,
)

pytestmark = needs_git


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    made = new_clone(tmp_path / "clone")
    monkeypatch.chdir(made.folder)
    return made


def test_head_base_and_where_they_parted(clone: Clone) -> None:
    fork = clone.commit("fork")
    clone.git("checkout", "-q", "-b", "mine")
    head = clone.commit("mine")
    clone.git("checkout", "-q", "main")
    base = clone.commit("theirs")
    clone.git("checkout", "-q", "mine")
    span = span_of("main")
    assert (span.base, span.fork, span.head) == (base, fork, head)
    assert commit_of("nowhere") is None


def test_a_folder_without_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match="lies in no git repository; go to your clone"):
        span_of("main")


def test_no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="git is needed for this, and not installed"):
        span_of("main")


def test_no_commit_yet(clone: Clone) -> None:
    with pytest.raises(UsageError, match="HEAD has no commit yet; commit the entry first"):
        span_of("main")


@pytest.mark.parametrize("name", ["nowhere", "", "--all", "HEAD:a file", "main..main"])
def test_a_base_that_is_no_commit(clone: Clone, name: str) -> None:
    clone.commit()
    with pytest.raises(
        UsageError, match="is not a commit of this repository; name the branch that the pull request goes"
    ):
        span_of(name)


def test_nothing_in_common(clone: Clone) -> None:
    clone.commit()
    clone.git("checkout", "-q", "--orphan", "other")
    clone.commit("from nothing")
    with pytest.raises(
        UsageError, match="HEAD and main have no commit in common, so this cannot be a pull request to it"
    ):
        span_of("main")


def test_a_shallow_clone_says_how_to_get_the_rest(
    clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.commit("fork")
    clone.git("checkout", "-q", "-b", "mine")
    clone.commit("mine")
    clone.git("checkout", "-q", "main")
    clone.commit("theirs")
    shallow = tmp_path / "shallow"
    words = ["clone", "-q", "--depth", "1", "--no-single-branch", "--branch", "mine", clone.folder.as_uri()]
    subprocess.run(["git", *words, str(shallow)], check=True, capture_output=True)
    monkeypatch.chdir(shallow)
    with pytest.raises(UsageError, match="no commit in common; this clone is shallow, git fetch --unshallow gets the"):
        span_of("origin/main")
    with pytest.raises(UsageError, match=r"'v1' is not a commit .* this clone is shallow, git fetch --unshallow gets"):
        span_of("v1")


def test_what_changes_between_two_commits(clone: Clone) -> None:
    for name in ("same", "changed", "moved here"):
        (clone.folder / name).write_text(f"{name}\n" * 20, encoding="utf-8")
    (clone.folder / "linked").write_text("a file", encoding="utf-8")
    before = clone.commit()
    (clone.folder / "changed").write_text("other", encoding="utf-8")
    (clone.folder / "moved here").rename(clone.folder / "moved\nthere")
    (clone.folder / "linked").unlink()
    (clone.folder / "linked").symlink_to("/etc/passwd")
    after = clone.commit()
    clone.git("config", "diff.renames", "copies")
    assert changes(before, after) == [
        FileChange("changed", "changed", True),
        FileChange("changed", "linked", False),
        FileChange("added", "moved\nthere", True),
        FileChange("deleted", "moved here", True),
    ]
    assert changes(after, after) == []


def test_a_submodule_is_not_plain(clone: Clone) -> None:
    before = clone.commit()
    clone.git("update-index", "--add", "--cacheinfo", f"160000,{before},leaderboard/entries/mine")
    clone.git("commit", "-q", "-m", "a submodule")
    assert changes(before, "HEAD") == [FileChange("added", "leaderboard/entries/mine", False)]
    assert files_in("HEAD") == []


def test_files_have_the_bytes_that_were_committed(clone: Clone, tmp_path: Path) -> None:
    data = {"a/b/one": b"a line\nand no end", "a/two": b"", "a/three": b"\r\n\0\n$Id$\n" * 1000, "c": b"elsewhere"}
    for name, content in data.items():
        (clone.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (clone.folder / name).write_bytes(content)
    (clone.folder / "a" / "link").symlink_to("two")
    commit = clone.commit()
    (clone.folder / ".gitattributes").write_text("* export-ignore export-subst ident text eol=crlf\n", encoding="utf-8")
    (clone.folder / "a" / "two").write_text("not committed", encoding="utf-8")
    found = {blob.path: content for blob, content in contents(files_in(commit, "a"))}
    assert found == {name: content for name, content in data.items() if name.startswith("a/")}
    attributes = clone.commit("attributes")
    write_files(attributes, tmp_path / "out", "a/b", "c")
    written = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert written == {"a/b/one", "c"}
    assert (tmp_path / "out" / "a" / "b" / "one").read_bytes() == data["a/b/one"]


def test_files_larger_than_asked_for_are_not_written(clone: Clone, tmp_path: Path) -> None:
    (clone.folder / "small").write_bytes(b"x" * 10)
    (clone.folder / "large").write_bytes(b"x" * 11)
    commit = clone.commit()
    assert {blob.path: blob.size for blob in files_in(commit)} == {"small": 10, "large": 11}
    write_files(commit, tmp_path / "out", most=10)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["small"]


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        ("a/b.json", True),
        ("a/" + "b" * 255, True),
        ("a/" + "b" * 256, False),
        ("a/" + "é" * 128, False),
        ("/".join(["a" * 99] * 10), True),
        ("/".join(["a" * 99] * 11), False),
        ("a/../b", False),
        ("../a", False),
        ("/a", False),
        ("a//b", False),
        ("a/./b", False),
    ],
)
def test_what_leads_elsewhere_or_is_too_long_cannot_be_written(path: str, fits: bool) -> None:
    assert can_be_written(path) is fits


def test_a_file_that_the_repository_lacks(clone: Clone) -> None:
    clone.commit()
    with pytest.raises(FileError, match="the repository lacks mine; git fsck says more"):
        list(contents([Blob("mine", "0" * 40)]))


def test_paths_are_named_from_the_root_wherever_one_stands(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    (clone.folder / "a").mkdir()
    (clone.folder / "a" / "one").write_text("one", encoding="utf-8")
    commit = clone.commit()
    monkeypatch.chdir(clone.folder / "a")
    assert [blob.path for blob in files_in(commit, "a")] == ["a/one"]
