"""Folders for a while: none is left, whatever ended its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from odebench.io import scratch
from odebench.io.scratch import scratch_folder

HOLDS = """
import time
from odebench.io.scratch import scratch_folder
with scratch_folder("x") as folder:
    print(folder, flush=True)
    time.sleep(60)
"""
TERMINATED = """
import sys, time
from pathlib import Path
import odebench.cli as cli
from odebench.io.scratch import scratch_folder
def work(**_):
    with scratch_folder():
        Path(sys.argv[1]).touch()
        time.sleep(60)
cli.app = work
cli.main()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(scratch, "_YOUNG_SECONDS", 0.0)
    return tmp_path


def test_what_a_killed_process_left_goes_with_the_next_and_what_lives_stays(here: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with scratch_folder() as own:
            assert sorted(here.iterdir()) == sorted([left, own])
        process.kill()
    (here / "odebench-mine-notes").mkdir()
    (here / "odebench-1-link").symlink_to(here)
    with scratch_folder():
        assert not left.exists()
    assert sorted(path.name for path in here.iterdir()) == ["odebench-1-link", "odebench-mine-notes"]


def test_a_young_one_goes_when_the_next_is_left(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_YOUNG_SECONDS", 60.0)
    monkeypatch.setattr(scratch, "_is_alive", lambda _: False)
    left = here / "odebench-1-left"
    left.mkdir()
    with scratch_folder():
        assert left.exists()
        os.utime(left, (0, 0))
    assert list(here.iterdir()) == []


def test_a_folder_that_a_process_of_another_namespace_holds_stays(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scratch_folder() as held:
        monkeypatch.setattr(scratch, "_is_alive", lambda _: False)
        with scratch_folder():
            assert held.exists()


def test_a_command_that_is_asked_to_end_leaves_no_folder(here: Path) -> None:
    mark = here / "mark"
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINATED, str(mark)], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    until = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err == "odebench: ended; a training resumes after its last complete epoch, an attack starts over\n"
    assert list(here.iterdir()) == [mark]
