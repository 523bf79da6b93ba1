"""Folders for a while: each goes when it is left, or where its process was killed with the next that is made."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = re.compile(r"odebench-(?:[a-z]+-)?(\d+)-\w+")
_YOUNG_SECONDS = 2.0


@contextmanager
def scratch_folder(kind: str = "") -> Iterator[Path]:
    """An empty folder, held while inside and deleted afterwards. Those of killed processes are deleted, too, before and
    after: one is left alone while it is young, since another process may be about to hold it."""
    _sweep()
    prefix = f"odebench-{f'{kind}-' if kind else ''}{os.getpid()}-"
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
            descriptor = _locked(name)
            try:
                yield Path(name)
            finally:
                if descriptor is not None:
                    os.close(descriptor)
    finally:
        _sweep()


def _sweep() -> None:
    """Deletes this user's scratch folders that no living process holds."""
    with suppress(OSError):
        for path in Path(tempfile.gettempdir()).iterdir():
            found = _NAME.fullmatch(path.name)
            if found is None or _is_alive(int(found[1])):
                continue
            with suppress(OSError):
                status = path.lstat()
                young = time.time() - status.st_mtime < _YOUNG_SECONDS
                if path.is_symlink() or not path.is_dir() or young or status.st_uid != os.getuid():
                    continue
                descriptor = _locked(str(path))  # a process in another namespace may hold it
                if descriptor is not None:
                    shutil.rmtree(path, ignore_errors=True)
                    os.close(descriptor)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _locked(name: str) -> int | None:
    """A descriptor that holds a folder; None where another holds it, or the system cannot tell."""
    try:
        import fcntl

        descriptor = os.open(name, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
