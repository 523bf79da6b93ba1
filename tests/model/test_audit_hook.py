"""The guard: what contributed code must not do is refused, and recorded with its line, even where it swallows that."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from odebench.model.audit_hook import Guard


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    (tmp_path / "entry").mkdir()
    (tmp_path / "scratch").mkdir()
    return Guard(tmp_path / "entry", tmp_path / "scratch")


def do(guard: Guard, code: str, **names: Any) -> None:
    """Runs code as if it stood in the entry's model.py, below an empty first line."""
    program = compile("\n" + code, str(Path(guard.folder) / "model.py"), "exec")
    with guard.watching(), contextlib.suppress(PermissionError):
        exec(program, {"os": os, "socket": socket, "subprocess": subprocess, "Path": Path, **names})


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("open(there, 'w')", "writing .*there"),
        ("open(there, 'a+b')", "writing .*there"),
        ("os.open(there, os.O_WRONLY | os.O_CREAT)", "writing .*there"),
        ("Path(there).touch()", "(writing|changing the times of) .*there"),
        ("Path(kept).write_text('x')", "writing .*kept"),
        ("os.mkdir(there)", "making the folder .*there"),
        ("os.remove(kept)", "deleting .*kept"),
        ("os.rename(kept, there)", "renaming .*kept to .*there"),
        ("os.rename(inside, there)", "renaming .*inside to .*there"),
        ("os.replace(kept, inside)", "renaming .*kept to .*inside"),
        ("os.link(kept, there)", "linking .*kept to .*there"),
        ("os.symlink(kept, there)", "linking .*kept to .*there"),
        ("os.chmod(kept, 0)", "changing the mode of .*kept"),
        ("os.truncate(kept, 0)", "truncating .*kept"),
        ("os.utime(kept)", "changing the times of .*kept"),
        ("__import__('shutil').rmtree(os.path.dirname(kept))", "deleting"),
        ("__import__('sqlite3').connect(there)", "opening the database .*there"),
        ("subprocess.run(['true'])", r"starting or ending a process \(subprocess.Popen\)"),
        ("os.system('true')", r"starting or ending a process \(os.system\)"),
        ("os.fork()", r"starting or ending a process \(os.fork\)"),
        ("os.execv('/bin/true', ['true'])", r"starting or ending a process \(os.exec\)"),
        ("os.posix_spawn('/bin/true', ['true'], {})", r"starting or ending a process \(os.posix_spawn\)"),
        ("os.kill(os.getpid(), 0)", r"starting or ending a process \(os.kill\)"),
        ("socket.create_connection(('127.0.0.1', 9))", r"reaching the network \(socket.getaddrinfo\)"),
        ("socket.socket().connect(('127.0.0.1', 9))", r"reaching the network \(socket.connect\)"),
        ("socket.socket().bind(('127.0.0.1', 0))", r"reaching the network \(socket.bind\)"),
        ("socket.getaddrinfo('localhost', 80)", r"reaching the network \(socket.getaddrinfo\)"),
        ("__import__('ctypes').CDLL(None)", "loading the library"),
    ],
)
@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_must_not_be_is_refused_and_recorded(
    guard: Guard, tmp_path: Path, code: str, what: str, swallowed: bool
) -> None:
    kept, there, inside = tmp_path / "kept", tmp_path / "there", tmp_path / "scratch" / "inside"
    kept.write_text("mine", encoding="utf-8")
    inside.write_text("its own", encoding="utf-8")
    text = f"try: {code}\nexcept BaseException: pass" if swallowed else code
    do(guard, text, there=str(there), kept=str(kept), inside=str(inside))
    assert kept.read_text(encoding="utf-8") == "mine"
    assert kept.stat().st_mode & 0o400
    assert not there.exists()
    assert not there.is_symlink()
    found = guard.breaches[0]
    assert re.fullmatch(what + ".*", found.what), found
    assert found.where == "model.py, line 2"


def test_what_may_be_is_let_through(guard: Guard, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("mine", encoding="utf-8")
    do(
        guard,
        "Path(kept).read_text(); open(os.devnull, 'w').close()\n"
        "os.makedirs(inside + '/a'); open(inside + '/a/b', 'w').close()\n"
        "os.remove(inside + '/a/b'); socket.socket().close(); open(os.dup(1), 'w').close(); import colorsys",
        kept=str(kept),
        inside=str(tmp_path / "scratch"),
    )
    assert guard.breaches == []
    assert (tmp_path / "scratch" / "a").is_dir()


def test_a_link_out_of_the_scratch_folder_leads_nowhere(guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "scratch" / "out").symlink_to(tmp_path)
    do(guard, "open(path, 'w')", path=str(tmp_path / "scratch" / "out" / "there"))
    assert len(guard.breaches) == 1
    assert not (tmp_path / "there").exists()


def test_threads_and_code_that_is_called_back_are_watched(guard: Guard, tmp_path: Path) -> None:
    do(
        guard,
        "def write():\n    try: open(there, 'w')\n    except OSError: pass\n"
        "thread = threading.Thread(target=write)\nthread.start()\nthread.join()",
        threading=threading,
        there=str(tmp_path / "there"),
    )
    assert [each.where for each in guard.breaches] == ["model.py, line 3"]


def test_others_may_load_libraries_and_all_is_allowed_afterwards(guard: Guard, tmp_path: Path) -> None:
    import ctypes

    with guard.watching():
        ctypes.CDLL(None)
        with pytest.raises(PermissionError, match=r"odebench refuses writing .*: an entry's code may only compute"):
            (tmp_path / "there").write_text("x", encoding="utf-8")
    (tmp_path / "there").write_text("x", encoding="utf-8")
    assert [each.where for each in guard.breaches] == [""], "nothing of the entry led to it"
    assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0


def test_libraries_installed_inside_the_folder_are_not_the_entrys_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "entry" / ".venv"
    monkeypatch.setattr(sys, "prefix", str(installed))
    guard = Guard(tmp_path / "entry", tmp_path / "scratch")
    text = "try: __import__('ctypes').CDLL(None)\nexcept PermissionError: pass"
    for place in (installed / "lib" / "package.py", tmp_path / "entry" / ".venv-of-its-own.py"):
        with guard.watching():
            exec(compile(text, str(place), "exec"), {})
    assert [each.where for each in guard.breaches] == [".venv-of-its-own.py, line 1"]
