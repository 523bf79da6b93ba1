"""Files are written whole or not at all, whatever fails, and what fails is said in one line."""

from __future__ import annotations

import hashlib
import os
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from odebench.io.files import FileError, check_writable, sha256_file, write_atomically, write_output
from odebench.io.folders import cache_folder


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """A disk on which no file grows beyond `room` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def refuse(*_: object, **__: object) -> None:
    raise OSError(5, "Input/output error")


def test_write_atomically_makes_folders_and_writes_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "result.json"
    write_atomically(path, b"\x00first\r\n")
    assert path.read_bytes() == b"\x00first\r\n"
    write_atomically(path, b"")
    assert path.read_bytes() == b""
    assert names(path.parent) == ["result.json"]


@pytest.mark.parametrize("broken", ["fsync", "replace", "chmod", "mkstemp"])
@pytest.mark.parametrize("old", [b"the old file", None])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    broken: str, old: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    if old is not None:
        path.write_bytes(old)
    targets = {
        "fsync": "odebench.io.files.os.fsync",
        "mkstemp": "odebench.io.files.tempfile.mkstemp",
        "replace": "odebench.io.files.Path.replace",
        "chmod": "odebench.io.files.Path.chmod",
    }
    monkeypatch.setattr(targets[broken], refuse)
    with pytest.raises(FileError, match=r"cannot write .*result\.json: Input/output error; free space or name another"):
        write_atomically(path, b"new")
    assert names(tmp_path) == ([] if old is None else ["result.json"])
    assert old is None or path.read_bytes() == old


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("odebench.io.files.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "result.json", b"new")
    assert names(tmp_path) == []


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(b"old")
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        assert os.fstat(descriptor).st_size == 3, "nothing may wait in a buffer"
        order.append("fsync")
        fsync(descriptor)

    def watched_replace(self: Path, target: Path) -> Path:
        assert self.parent == target.parent, "a rename is atomic within one folder"
        assert (target.read_bytes(), self.read_bytes()) == (b"old", b"new")
        order.append("replace")
        return replace(self, target)

    monkeypatch.setattr("odebench.io.files.os.fsync", watched_fsync)
    monkeypatch.setattr("odebench.io.files.Path.replace", watched_replace)
    write_atomically(path, b"new")
    assert order == ["fsync", "replace"]
    assert path.read_bytes() == b"new"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, b"old")
    with full_disk(1000), pytest.raises(FileError, match=r"cannot write .*: File too large; free space"):
        write_atomically(path, b"x" * 100_000)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["result.json"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_mode_that_the_umask_asks_for(mask: int, mode: int, tmp_path: Path) -> None:
    with umask(mask):
        write_atomically(tmp_path / "result.json", b"x")
        assert os.umask(mask) == mask, "the umask stays as it was"
    assert stat.S_IMODE((tmp_path / "result.json").stat().st_mode) == mode


def test_a_long_name_is_written_or_refused_in_one_line(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("n" * 255), b"x")
    with pytest.raises(FileError, match=r"cannot write .*: File name too long"):
        write_atomically(tmp_path / ("n" * 256), b"x")
    assert names(tmp_path) == ["n" * 255]


@pytest.mark.parametrize("action", [write_atomically, lambda path, _: check_writable(path.parent)])
@pytest.mark.parametrize("below", ["taken/result.json", "taken/deeper/result.json"])
def test_a_file_in_the_way_of_a_folder_is_named(
    action: Callable[[Path, bytes], None], below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file")
    with pytest.raises(FileError, match=r"cannot write .*taken.*: (taken is not a folder|Not a directory); .*name ano"):
        action(Path(below), b"x")
    assert Path("taken").read_text() == "a file"


def test_check_writable_makes_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path / "a" / "b")
    assert names(tmp_path) == ["a", "b"]


def test_check_writable_tries_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odebench.io.files.tempfile.TemporaryFile", refuse)
    with pytest.raises(FileError, match=r"cannot write in .*: Input/output error; name another folder"):
        check_writable(tmp_path)


def test_output_goes_to_standard_output_without_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    write_output("| a table |\n", None)
    assert capsys.readouterr().out == "| a table |\n"


def test_output_replaces_a_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "table.md"
    write_output("ε first\n", path)
    assert path.read_text(encoding="utf-8") == "ε first\n"
    monkeypatch.setattr("odebench.io.files.os.fsync", refuse)
    with pytest.raises(FileError, match="cannot write"):
        write_output("second\n", path)
    assert path.read_text(encoding="utf-8") == "ε first\n"


def test_output_to_a_device_is_written_and_does_not_replace_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_output("a table\n", pipe)
        assert os.read(reader, 100) == b"a table\n"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(tmp_path) == ["pipe"]


@pytest.mark.parametrize(
    ("path", "reason"), [("/dev/full", "No space left on device"), ("", "Is a directory")], ids=["full", "folder"]
)
def test_output_that_cannot_be_written_is_one_line(
    path: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match=f"cannot write .*: {reason}; name another file"):
        write_output("a table\n", Path(path))
    assert names(tmp_path) == []


def test_sha256_reads_the_whole_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000  # longer than one block
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_the_cache_folder_is_the_given_one_else_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("ODEBENCH_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    for absent in ("", None):
        monkeypatch.delenv("ODEBENCH_CACHE", raising=False)
        if absent is not None:
            monkeypatch.setenv("ODEBENCH_CACHE", absent)
        assert cache_folder().name == "odebench"
        assert tmp_path in cache_folder().parents
