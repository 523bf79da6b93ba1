"""A guard around contributed code: forbidden actions are refused, and recorded even if the code catches the refusal.

It listens to Python's audit events (PEP 578). It is not a sandbox: native code, and code that changes odebench or
Python itself, can get around it. So read contributed code before you run it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from odebench.protocol.spec import Spec

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {
    "os.mkdir": (1, 2, "making the folder"),
    "os.remove": (1, 1, "deleting"),
    "os.rmdir": (1, 1, "deleting"),
    "shutil.rmtree": (1, 1, "deleting"),
    "os.rename": (2, 2, "renaming"),
    "os.link": (2, 2, "linking"),
    "os.symlink": (2, 2, "linking"),
    "os.chmod": (1, 2, "changing the mode of"),
    "os.chown": (1, 3, "changing the owner of"),
    "os.truncate": (1, 2, "truncating"),
    "os.utime": (1, 3, "changing the times of"),
    "os.setxattr": (1, 4, "changing the attributes of"),
    "os.removexattr": (1, 2, "changing the attributes of"),
    "sqlite3.connect": (1, 1, "opening the database"),
}
"""Events whose first arguments are paths: how many, the first argument that may be the descriptor of a folder that they
are relative to, and the words for the action."""
_PROCESSES = frozenset(
    {
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.startfile",
        "os.kill",
        "os.killpg",
        "pty.spawn",
    }
)
_SOCKETS = "socket."
_QUIET_SOCKETS = frozenset({"socket.__new__", "socket.gethostname"})
_LIBRARY = "ctypes.dlopen"


class Breach(Spec):
    """One refused action, and the innermost line of the entry's code that led to it ("" if none did)."""

    what: str
    where: str


class Guard:
    """While it watches, refuses to write outside a scratch folder, to start or end processes, to open sockets and, for
    the code of an entry, to load libraries. `breaches` lists what was refused."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch = os.path.realpath(folder), os.path.realpath(scratch)
        self.breaches: list[Breach] = []
        self.installed = os.path.realpath(sys.prefix)  # a project may have its environment inside: not the entry's code

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A context in which this guard refuses, in all threads of the process."""
        global _active
        _install()
        before, _active = _active, self
        try:
            yield
        finally:
            _active = before

    def judge(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Checks one audit event. Records a forbidden one and raises PermissionError."""
        what = self._forbidden(event, arguments)
        if what is None:
            return
        where = self._line()
        if event == _LIBRARY and not where:
            return  # torch and other packages load their own libraries
        self.breaches.append(Breach(what=what, where=where))
        raise PermissionError(f"odebench refuses {what}: an entry's code may only compute")

    def _forbidden(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        if event == "open":
            path, mode, flags = arguments[:3]
            writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & _WRITING)
            return f"writing {_shown(path)}" if writes and not self._allowed(path) else None
        if event in _PATHS:
            count, relative, doing = _PATHS[event]
            paths = arguments[:count]
            anchored = any(isinstance(each, int) and each >= 0 for each in arguments[relative:])
            fine = not anchored and all(self._allowed(path) for path in paths)
            return None if fine else f"{doing} {' to '.join(_shown(path) for path in paths)}"
        if event in _PROCESSES:
            return f"starting or ending a process ({event})"
        if event.startswith(_SOCKETS) and event not in _QUIET_SOCKETS:
            return f"reaching the network ({event})"
        if event == _LIBRARY:
            return f"loading the library {_shown(arguments[0])}"
        return None

    def _allowed(self, path: Any) -> bool:
        """Whether a path may be written: in the scratch folder, an open file, or the null device."""
        if isinstance(path, int):
            return True
        try:
            text = os.fsdecode(path)
        except TypeError:
            return False
        whole = os.path.realpath(text)
        return whole == os.devnull or whole == self.scratch or whole.startswith(self.scratch + os.sep)

    def _own(self, file: str) -> bool:
        """Whether a file is the entry's code."""
        inside = self.installed.startswith(self.folder + os.sep) and file.startswith(self.installed + os.sep)
        return file.startswith(self.folder + os.sep) and not inside

    def _line(self) -> str:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            file = frame.f_code.co_filename
            if self._own(file) or self._own(os.path.realpath(file)):
                return f"{os.path.basename(file)}, line {frame.f_lineno}"
            frame = frame.f_back
        return ""


_active: Guard | None = None
_installed = False


def _install() -> None:
    global _installed
    if not _installed:
        sys.addaudithook(_hook)  # Python cannot remove it again
        _installed = True


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _active is not None:
        _active.judge(event, arguments)


def _shown(path: Any) -> str:
    try:
        return os.fsdecode(path)
    except TypeError:
        return str(path)
