"""The wall around code that an entry brings: what the system grants to keep a process apart, raised from within it.

The walls, each raised where the kernel grants it:

    secrets     a user namespace of its own: no environment or memory of another process can be read
    network     a network namespace without any interface
    processes   a process namespace with a /proc of its own: all in it ends with its first process
    files       everything but the process's own folder is read-only, and the sockets below /run are hidden
    privileges  no capability, and none to be gained
    calls       a filter of system calls: no new process, no program, no socket, no namespace, no look into others
    memory      limits on memory, open files and the size of a file

Linux alone has them; elsewhere none is raised. A process cannot leave its walls, nor can anything it starts.
`raise_walls` must run before there is a second thread, and `filter_calls` after all is imported that starts a process
when it is. Nothing here needs torch.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from odebench.io.scratch import scratch_folder

SECRETS, NETWORK, PROCESSES, FILES, PRIVILEGES, CALLS, MEMORY = WALLS = (
    "secrets",
    "network",
    "processes",
    "files",
    "privileges",
    "calls",
    "memory",
)
_WORDS = {
    SECRETS: "a user namespace",
    NETWORK: "a network namespace",
    PROCESSES: "a process namespace",
    FILES: "a file system that is read-only but for a folder",
    PRIVILEGES: "a lack of privileges",
    CALLS: "a filter of system calls",
    MEMORY: "a limit of memory",
}
NOT_RAISED = 113
"""The exit code of a process that could not raise a wall which the system had granted before."""

_NEW_NS, _NEW_IPC, _NEW_USER, _NEW_PID, _NEW_NET = 0x20000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_NO_SUID_DEV_EXEC = 0x1000, 0x4000, 0x40000, 0xE
_AT_FDCWD, _AT_RECURSIVE, _READ_ONLY = -100, 0x8000, 1
_PDEATHSIG, _CAPBSET_DROP, _NO_NEW_PRIVS = 1, 24, 38
_MEMORY_SHARE = 0.75
_MOST_FILE, _MOST_FILES = 1 << 30, 1024
_HIDDEN = ("/run", "/var/run")

# Numbers of system calls: of the audit architecture, mount_setattr and seccomp, capset, clone, clone3, and those that
# the filter refuses (linux/audit.h; arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h).
_REFUSED = {
    "x86_64": (
        *(57, 58, 59, 322),  # fork, vfork, execve, execveat
        *(41, 53),  # socket, socketpair
        *(101, 310, 311, 312),  # ptrace, process_vm_readv, process_vm_writev, kcmp
        *(272, 308, 165, 166, 155, 161),  # unshare, setns, mount, umount2, pivot_root, chroot
        *(428, 429, 430, 431, 432, 442),  # open_tree, move_mount, fsopen, fsconfig, fsmount, mount_setattr
        *(248, 249, 250, 321, 298, 323),  # add_key, request_key, keyctl, bpf, perf_event_open, userfaultfd
        *(425, 426, 427, 434, 438),  # io_uring_setup, _enter, _register, pidfd_open, pidfd_getfd
    ),
    "aarch64": (
        *(221, 281),
        *(198, 199),
        *(117, 270, 271, 272),
        *(97, 268, 40, 39, 41, 51),
        *(428, 429, 430, 431, 432, 442),
        *(217, 218, 219, 280, 241, 282),
        *(425, 426, 427, 434, 438),
    ),
}
_ARCHITECTURES = {"x86_64": (0xC000003E, 317, 126, 56), "aarch64": (0xC00000B7, 277, 91, 220)}
"""By machine: the audit architecture, and the numbers of seccomp, capset and clone."""
_MOUNT_SETATTR, _CLONE3, _X32 = 442, 435, 0x40000000
_CLONE_THREAD = 0x10000
_ALLOW, _ERRNO, _EPERM, _ENOSYS = 0x7FFF0000, 0x50000, 1, 38


def raise_walls(scratch: str, *, needed: Sequence[str] = (), memory: bool = True) -> list[str]:
    """Raises around this process, or around a child that goes on in its stead, the walls that the kernel grants, and
    returns their names. All but `scratch` becomes read-only, what is `needed` remains to be seen. Without `memory` its
    size is not limited.

    The process that called waits for the child, ends as it does, and takes it along.
    """
    if not sys.platform.startswith("linux"):
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    user, group, raised = os.getuid(), os.getgid(), []
    if memory and _granted(_limit_memory):
        raised.append(MEMORY)
    parent, spaces = os.getppid(), _unshared(libc, user, group)
    raised += spaces
    libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a new user may have cleared it
    if os.getppid() != parent:
        os._exit(1)
    if PROCESSES in spaces:
        _continue_in_child(libc)
    if FILES in spaces and not _granted(lambda: _read_only(libc, scratch, needed)):
        raised.remove(FILES)
    if PROCESSES in spaces and not _granted(lambda: _own_proc(libc)):
        raised.remove(PROCESSES)
    if _granted(lambda: _drop_privileges(libc)):
        raised.append(PRIVILEGES)
    return raised


def filter_calls() -> list[str]:
    """Raises the last wall, in all threads of this process, if the kernel grants it, and returns its name."""
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine not in _ARCHITECTURES:
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    architecture, seccomp, _, clone = _ARCHITECTURES[machine]
    program = _program(architecture, clone, _REFUSED[machine])
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    block = ctypes.create_string_buffer(header, len(header))

    def install() -> None:
        _check(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
        _check(libc.syscall(seccomp, 1, 1, block))  # a filter, for all threads

    return [CALLS] if _granted(install) else []


def missing(raised: Iterable[str]) -> list[str]:
    """The walls that were not raised, in their order."""
    there = set(raised)
    return [wall for wall in WALLS if wall not in there]


def missing_walls(without: Sequence[str]) -> str:
    """What a report says of the walls that this system does not grant to the code of an entry."""
    secrets = "secrets readable: " if SECRETS in without else ""
    return f"{secrets}its code runs without {', '.join(_WORDS[wall] for wall in without)} of its own"


@lru_cache(maxsize=1)
def granted_walls() -> tuple[str, ...]:
    """The walls that this system grants to a process that this one starts: tried in one, once."""
    with scratch_folder() as folder:
        scratch = str(folder)
        code = f"from odebench.model.wall import report; report({scratch!r})"
        try:
            found = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                timeout=60,
                check=False,
                cwd=scratch,
                env={
                    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)]),
                    "TMPDIR": scratch,
                },
            )
        except (OSError, subprocess.TimeoutExpired):
            return ()
    said = found.stdout.decode(errors="replace").split() if found.returncode == 0 else []
    return tuple(wall for wall in WALLS if wall in said)


def report(scratch: str) -> None:
    """Prints the names of the walls that could be raised. The program of `granted_walls`."""
    raised = raise_walls(scratch)
    print(*raised, *filter_calls(), flush=True)
    os._exit(0)


def _check(status: int) -> None:
    if status < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _granted(action: Callable[[], None]) -> bool:
    try:
        action()
    except (OSError, ValueError, AttributeError, ImportError):
        return False
    return True


def _limit_memory() -> None:
    import resource

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            total = min(total, int(Path(file).read_text(encoding="ascii")))
    for what, most in (
        (resource.RLIMIT_DATA, int(total * _MEMORY_SHARE)),
        (resource.RLIMIT_FSIZE, _MOST_FILE),
        (resource.RLIMIT_NOFILE, _MOST_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def _unshared(libc: ctypes.CDLL, user: int, group: int) -> list[str]:
    """The walls for which namespaces were made; fewer where the kernel refuses some, none without one for the user."""
    optional = {NETWORK: _NEW_NET, FILES: _NEW_NS, PROCESSES: _NEW_PID | _NEW_NS}
    if not _granted(lambda: _check(libc.unshare(_NEW_USER))):
        return []
    maps = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
    for name, text in maps.items():
        with suppress(OSError):
            Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
    _granted(lambda: _check(libc.unshare(_NEW_IPC)))
    return [SECRETS, *(wall for wall, flags in optional.items() if _granted(lambda: _check(libc.unshare(flags))))]  # noqa: B023


def _continue_in_child(libc: ctypes.CDLL) -> None:
    """Goes on in a child, the first process of the new namespace. The parent closes all, waits, and ends as it ends."""
    child = os.fork()
    if child:
        os.closerange(3, 1 << 16)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    _check(libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def _read_only(libc: ctypes.CDLL, scratch: str, needed: Sequence[str]) -> None:
    mine = os.fsencode(scratch)
    _check(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    _check(libc.mount(mine, mine, None, _MS_BIND, None))
    _check(libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, *_attributes(set_=_READ_ONLY)))
    _check(libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, mine, 0, *_attributes(clear=_READ_ONLY)))
    used = [os.path.realpath(path) for path in (scratch, sys.prefix, sys.base_prefix, *sys.path, *needed)]
    for folder in _HIDDEN:
        if os.path.isdir(folder) and not os.path.islink(folder) and not any(one.startswith(folder) for one in used):
            _check(libc.mount(b"tmpfs", folder.encode(), b"tmpfs", _MS_NO_SUID_DEV_EXEC, None))
    os.chdir(scratch)  # the folder as it is mounted now


def _attributes(*, set_: int = 0, clear: int = 0) -> tuple[ctypes.Array[ctypes.c_char], int]:
    data = struct.pack("QQQQ", set_, clear, 0, 0)
    return ctypes.create_string_buffer(data, len(data)), len(data)


def _own_proc(libc: ctypes.CDLL) -> None:
    _check(libc.mount(b"proc", b"/proc", b"proc", _MS_NO_SUID_DEV_EXEC, None))


def _drop_privileges(libc: ctypes.CDLL) -> None:
    _check(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    for capability in range(64):
        libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0)  # fails beyond the last, and where there are none to drop
    _, _, capset, _ = _ARCHITECTURES[platform.machine()]
    header, empty = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _check(libc.syscall(capset, header, empty))


def _program(architecture: int, clone: int, refused: tuple[int, ...]) -> bytes:
    """The filter as classic BPF: refused calls and new processes get EPERM, clone3 ENOSYS (so that clone is tried)."""

    def load(offset: int) -> bytes:
        return struct.pack("HBBI", 0x20, 0, 0, offset)

    def jump(operation: int, value: int, yes: int, no: int) -> bytes:
        return struct.pack("HBBI", operation, yes, no, value)

    def answer(value: int) -> bytes:
        return struct.pack("HBBI", 0x06, 0, 0, value)

    equal, at_least, bits = 0x15, 0x35, 0x45
    body = [load(4), jump(equal, architecture, 1, 0), answer(_ERRNO | _EPERM), load(0)]
    if architecture == _ARCHITECTURES["x86_64"][0]:
        body += [jump(at_least, _X32, 0, 1), answer(_ERRNO | _EPERM)]
    for number in refused:
        body += [jump(equal, number, 0, 1), answer(_ERRNO | _EPERM)]
    body += [jump(equal, _CLONE3, 0, 1), answer(_ERRNO | _ENOSYS)]
    body += [jump(equal, clone, 0, 3), load(16), jump(bits, _CLONE_THREAD, 1, 0), answer(_ERRNO | _EPERM)]
    return b"".join([*body, answer(_ALLOW)])
