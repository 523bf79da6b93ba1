"""A git repository, read by the command git: commits, what changed between two, files as they were committed."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from odebench.errors import UsageError
from odebench.io.files import FileError

_KINDS: dict[str, Literal["added", "changed", "deleted"]] = {"A": "added", "D": "deleted"}
_PLAIN = ("100644", "100755")
_MOST_NAME, _MOST_PATH = 255, 1000
"""The most bytes of a name that a file system takes, and of a path that leaves room for the folder it is put into."""


@dataclass(frozen=True)
class Span:
    """Three commits: `base`, `head`, and `fork`, where head left base."""

    base: str
    fork: str
    head: str


@dataclass(frozen=True)
class FileChange:
    """A file, by its path, that differs between two commits; `plain` unless it is then a link or a submodule."""

    kind: Literal["added", "changed", "deleted"]
    path: str
    plain: bool


@dataclass(frozen=True)
class Blob:
    """A plain file of a commit: its path, the name of its content in git, and its size in bytes."""

    path: str
    name: str
    size: int = 0


def git(*words: str) -> bytes | None:
    """What a git command prints; None where it fails: no git, no repository, no such name."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def commit_of(name: str) -> str | None:
    """The sha of the commit that a name stands for; None where there is none."""
    found = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return None if found is None else found.decode().strip()


def span_of(base: str) -> Span:
    """The commit `base`, HEAD, and where HEAD left it. Raises UsageError where one of them is missing."""
    if shutil.which("git") is None:
        raise UsageError("git is needed for this, and not installed")
    if git("rev-parse", "--git-dir") is None:
        raise UsageError(f"{Path.cwd()} lies in no git repository; go to your clone, where the entry is committed")
    shallow = git("rev-parse", "--is-shallow-repository") == b"true\n"
    rest = "; this clone is shallow, git fetch --unshallow gets the rest" if shallow else ""
    at, head = commit_of(base), commit_of("HEAD")
    if head is None:
        raise UsageError("HEAD has no commit yet; commit the entry first")
    if at is None:
        said = f"{base!r} is not a commit of this repository; name the branch that the pull request goes to"
        raise UsageError(f"{said}, such as origin/main{rest}")
    fork = git("merge-base", at, head)
    if fork is None:
        said = f"HEAD and {base} have no commit in common"
        raise UsageError(f"{said}{rest or ', so this cannot be a pull request to it; name the branch that HEAD left'}")
    return Span(at, fork.decode().split()[0], head)


def changes(before: str, after: str) -> list[FileChange]:
    """The files that differ between two commits, by path. A moved file is deleted at one path and added at another.
    Raises FileError for a commit that git cannot read."""
    raw = git("diff-tree", "-r", "-z", "--raw", "--no-renames", "--ignore-submodules=none", before, after)
    words = iter(_texts(raw))
    found = []
    for about, path in zip(words, words, strict=True):
        mode, kind = about.split()[1], about.split()[4][0]
        found.append(FileChange(_KINDS.get(kind, "changed"), path, kind == "D" or mode in _PLAIN))
    return sorted(found, key=lambda change: change.path)


def files_in(commit: str, *folders: str) -> list[Blob]:
    """The plain files of a commit below some folders, named from the root. Links, submodules and paths that cannot be
    written are left out. Raises FileError for a commit that git cannot read."""
    found = []
    for line in _texts(git("ls-tree", "-r", "-l", "-z", "--full-tree", commit, "--", *folders)):
        about, _, path = line.partition("\t")
        mode, _, name, size = about.split()
        if mode in _PLAIN and can_be_written(path):
            found.append(Blob(path, name, int(size) if size.isdigit() else 0))
    # a tree may hold a name twice, as a file and as a folder
    often = Counter(blob.path for blob in found)
    folders_of = {str(above) for blob in found for above in PurePosixPath(blob.path).parents}
    return [blob for blob in found if often[blob.path] == 1 and blob.path not in folders_of]


def can_be_written(path: str) -> bool:
    """Whether a path of a commit leads to one place below a folder, and is short enough for a file system."""
    names = [os.fsencode(name) for name in path.split("/")]
    whole = len(os.fsencode(path)) <= _MOST_PATH
    return whole and all(name not in (b"", b".", b"..") and len(name) <= _MOST_NAME for name in names)


def contents(blobs: Sequence[Blob]) -> Iterator[tuple[Blob, bytes]]:
    """Each file with its bytes as committed, without attributes and filters. Raises FileError for a missing one."""
    with subprocess.Popen(["git", "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        for blob in blobs:
            reader.stdin.write(f"{blob.name}\n".encode())
            reader.stdin.flush()
            about = reader.stdout.readline().split()
            if len(about) != 3:
                raise FileError(f"the repository lacks {blob.path}; git fsck says more")
            data = reader.stdout.read(int(about[2]) + 1)
            yield blob, data[:-1]


def write_files(commit: str, folder: Path, *below: str, most: float = math.inf) -> None:
    """Writes the plain files of a commit below some folders, of at most so many bytes, to `folder`, by their paths from
    the root."""
    for blob, data in contents([blob for blob in files_in(commit, *below) if blob.size <= most]):
        target = folder / blob.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _texts(raw: bytes | None) -> list[str]:
    """The parts of what git printed with -z; bytes that are not UTF-8 are decoded as the file system does."""
    if raw is None:
        raise FileError("git cannot read a commit; git fsck says more")
    return [os.fsdecode(part) for part in raw.split(b"\0")[:-1]]


@dataclass(frozen=True)
class CommittedVersion:
    """The content of a file in a commit, and when that commit was written, in seconds since 1970."""

    written: int
    content: bytes


def versions_of(path: Path) -> list[CommittedVersion] | None:
    """All committed versions of a file that HEAD descends from, the newest first; None where there is no git, no
    repository, or only the newest commits of one (a shallow clone)."""
    folder = str(path.parent.resolve())
    if git("-C", folder, "rev-parse", "--is-shallow-repository") != b"false\n":
        return None
    listed = git("-C", folder, "log", "--format=%H %at", "--", path.name) or b""  # fails where nothing is committed
    found = []
    for line in listed.decode().splitlines():
        commit, written = line.split()
        content = git("-C", folder, "show", f"{commit}:./{path.name}")
        if content is not None:
            found.append(CommittedVersion(int(written), content))
    return found
