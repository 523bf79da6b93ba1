"""The wall around an entry's code: what the kernel grants is raised, and nothing gets past it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from odebench.model import wall
from odebench.model.wall import CALLS, FILES, NETWORK, PROCESSES, SECRETS, WALLS, granted_walls, missing, missing_walls

PROGRAM = """
import contextlib, ctypes, os, socket, subprocess, sys
from odebench.model.wall import filter_calls, raise_walls
parent, there, scratch = os.getppid(), sys.argv[1], os.getcwd()
raise_walls(scratch)
if sys.argv[2] == "filtered":
    filter_calls()
def tried(what, action):
    try:
        action()
    except (OSError, ValueError):
        print(what, flush=True)
tried("secrets", lambda: open(f"/proc/{parent}/environ", "rb").read(1) or [][0])
tried("network", lambda: socket.create_connection(("127.0.0.1", int(sys.argv[3])), timeout=5))
tried("processes", lambda: os.kill(parent, 0))
tried("files", lambda: open(there, "w"))
tried("calls", lambda: subprocess.run(["true"], check=True))
tried("link", lambda: os.symlink("/", there))
open("mine", "w").write("in its own folder")
os._exit(7)
"""


def tried(tmp_path: Path, *words: str) -> tuple[int, list[str]]:
    """The exit code of a walled program, and which of its tries failed."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "there"), *words],
        cwd=scratch,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(Path(wall.__file__).parents[2])},
    )
    assert (scratch / "mine").read_text(encoding="utf-8") == "in its own folder", found.stderr
    assert not (tmp_path / "there").exists()
    return found.returncode, found.stdout.split()


@pytest.mark.skipif(not {SECRETS, NETWORK, PROCESSES, FILES, CALLS} <= set(granted_walls()), reason="not granted here")
def test_what_the_kernel_grants_holds_and_the_exit_code_comes_through(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        code, failed = tried(tmp_path, "filtered", port)
    assert (code, failed) == (7, ["secrets", "network", "processes", "files", "calls", "link"])


def test_a_system_that_grants_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert wall.raise_walls("/nowhere") == []
    assert wall.filter_calls() == []
    assert missing([]) == list(WALLS)
    assert missing_walls(missing([])).startswith("secrets readable: its code runs without a user namespace, a network")
    assert "secrets" not in missing_walls([NETWORK])
    assert missing(WALLS) == []
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    granted_walls.cache_clear()
    try:
        assert granted_walls() == ()
    finally:
        granted_walls.cache_clear()


def test_a_machine_without_the_filter_raises_no_such_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall.platform, "machine", lambda: "pdp11")
    assert wall.filter_calls() == []
    assert os.getpid()
