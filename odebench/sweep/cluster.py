"""Dask clusters for a sweep: processes on this machine, or a scheduler at an address. Needs distributed."""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
from distributed import Client, LocalCluster, Security, WorkerPlugin

from odebench.errors import OdebenchError, UsageError
from odebench.io.scratch import scratch_folder
from odebench.io.text import first_line
from odebench.io.versions import PACKAGES

ALLOWED_DEATHS = 20
"""The number of workers that may die with a task before it is given up; the default of 3 is soon reached by chance."""
CONNECT_SECONDS = 5
SILENT_SECONDS = 60
"""A worker that has said nothing for so long has lost its task; workers speak twice a second, whatever they compute."""
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": 2**25, "MALLOC_TRIM_THRESHOLD_": 2**30}
"""Settings of glibc for the workers on this machine. dask sets the second alone, to 64 KiB: then every tensor above 128
KiB is mapped, cleared by the system and unmapped again. Older versions take at most 2^25 for the first."""
_SHARED_PACKAGES = ("dask", "distributed", "python", "odebench")
"""Packages whose versions must agree for client, scheduler and workers; the scheduler unpickles the graph, too."""


class ClusterError(OdebenchError):
    """A scheduler cannot be reached, has died, or has other package versions."""


class _IgnoreInterrupt(WorkerPlugin):  # type: ignore[misc]
    """Makes workers ignore Ctrl-C, which reaches all processes of a terminal: the sweep ends its workers itself."""

    def setup(self, worker: Any) -> None:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _configuration() -> dict[str, Any]:
    return {
        "distributed.scheduler.allowed-failures": ALLOWED_DEATHS,
        # tasks wait at the scheduler, not at a worker that may die with them
        "distributed.scheduler.worker-saturation": 1.0,
        # a worker that is stopped, and not dead, says nothing any more: its task goes to another
        "distributed.scheduler.worker-ttl": f"{SILENT_SECONDS}s",
        "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
        **{f"distributed.nanny.pre-spawn-environ.{name}": size for name, size in _MALLOC.items()},
        # for a machine that vanishes; distributed accepts no less
        "distributed.comm.timeouts.tcp": "11s",
        "distributed.worker.profile.enabled": False,
        "distributed.admin.low-level-log-length": 0,
    }


@contextmanager
def _signals_wait() -> Iterator[None]:
    """SIGINT and SIGTERM are answered when the context ends: a cluster that is half started cannot be closed."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda number, _: came.append(number)) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)
    if came:
        signal.raise_signal(came[0])


@contextmanager
def local_cluster(workers: int, *, threads: int) -> Iterator[Any]:
    """A client of a scheduler in this process that has `workers` processes with `threads` threads each."""
    counted = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    counted["ODEBENCH_CACHE"] = os.environ.get("ODEBENCH_CACHE", "")
    environment = {name: value for name, value in counted.items() if value}
    with (
        scratch_folder("sweep") as folder,
        # for the scheduler, which is told no folder, and would leave its own behind
        dask.config.set({**_configuration(), "temporary-directory": str(folder)}),
        _quiet(),
        ExitStack() as started,
    ):
        with _signals_wait():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                memory_limit=None,
                silence_logs=logging.CRITICAL,
                local_directory=str(folder),
                env=environment,
            )
            started.enter_context(cluster)
            client = started.enter_context(Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False))
        client.register_plugin(_IgnoreInterrupt(), name="odebench-ignore-interrupt")
        yield client


def _security(files: tuple[Path, Path, Path]) -> Any:
    """The Security object for distributed. Raises UsageError for a missing file."""
    for path in files:
        if not path.is_file():
            raise UsageError(f"there is no file {path} for TLS")
    names = ("tls_ca_file", "tls_client_cert", "tls_client_key")
    return Security(**dict(zip(names, map(str, files), strict=True)), require_encryption=True)


@contextmanager
def remote_cluster(address: str, *, tls: tuple[Path, Path, Path] | None, say: Callable[[str], None]) -> Iterator[Any]:
    """A client of the scheduler at `address`. Raises ClusterError, within seconds, where it cannot be used.

    `tls` are the files of the authority, and of this client's certificate and key, for a tls:// scheduler."""
    if not address.startswith(("tcp://", "tls://")):
        raise UsageError(f"the scheduler {address!r} must begin with tcp:// or tls://, such as tcp://127.0.0.1:8786")
    if address.startswith("tls://") != (tls is not None):
        raise UsageError(
            "a tls:// scheduler needs --tls-ca, --tls-cert and --tls-key, and a tcp:// one takes none of them"
        )
    security = None if tls is None else _security(tls)
    with dask.config.set(_configuration()), _quiet():
        try:
            _check_port(address)
            client = _in_time(lambda: Client(address, timeout=CONNECT_SECONDS, set_as_default=False, security=security))
        except Exception as error:  # another version of distributed, or no scheduler at all, may raise anything
            raise ClusterError(
                f"no scheduler answers at {address} ({_reason(error)}); start one with `dask scheduler`, or leave "
                "out --scheduler to compute on this machine"
            ) from error
        try:
            try:
                _in_time(lambda: _check_versions(client, address))
                _in_time(lambda: client.run_on_scheduler(_set_scheduler, deaths=ALLOWED_DEATHS, silent=SILENT_SECONDS))
                _say_workers(client, say)
            except OSError as error:
                raise ClusterError(f"the scheduler at {address} is gone: {_reason(error)}") from error
            yield client
        finally:
            with suppress(Exception):
                client.close(timeout=2)


def _check_port(address: str) -> None:
    """Raises OSError or ValueError at once where nothing listens; distributed would retry until its timeout."""
    where = urlsplit(address)
    if where.hostname is None or where.port is None:
        raise ValueError("it names no host and port")
    socket.create_connection((where.hostname, where.port), timeout=CONNECT_SECONDS).close()


def answers(client: Any) -> bool:
    """Whether the scheduler of a client answers within SILENT_SECONDS; one that is stopped, and not dead, does not."""
    try:
        _in_time(lambda: client.sync(client.scheduler.identity), seconds=SILENT_SECONDS)
    except Exception:  # whatever distributed makes of it
        return False
    return True


def _in_time(call: Callable[[], Any], *, seconds: float = CONNECT_SECONDS + 2) -> Any:
    """The value of `call`. Raises TimeoutError where it takes too long: what listens may not be a scheduler."""
    found: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def answer() -> None:
        try:
            found.put((call(), None))
        except BaseException as error:  # raised again in the calling thread
            found.put((None, error))

    threading.Thread(target=answer, daemon=True).start()
    try:
        value, error = found.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("it does not answer as a scheduler does") from None
    if error is not None:
        raise error
    return value


def _set_scheduler(deaths: int, silent: int, dask_scheduler: Any = None) -> None:
    dask_scheduler.allowed_failures = deaths
    dask_scheduler.worker_ttl = min(dask_scheduler.worker_ttl or silent, silent)
    dask_scheduler.WORKER_SATURATION = 1.0


def _say_workers(client: Any, say: Callable[[str], None]) -> None:
    threads: Mapping[str, int] = client.nthreads()
    if not threads:
        say("the scheduler has no worker yet: waiting for some (dask worker ADDRESS --nthreads 1)")
    elif several := [address for address, count in threads.items() if count > 1]:
        say(
            f"{len(several)} worker{'s have' if len(several) > 1 else ' has'} several threads, but computes one task "
            "at a time: start workers with --nthreads 1"
        )


def _check_versions(client: Any, address: str) -> None:
    """Raises ClusterError where the scheduler or a worker has other versions of the packages than this process."""
    try:
        found = client.get_versions(check=False, packages=list(PACKAGES))
    except Exception as error:
        raise ClusterError(f"the scheduler at {address} does not answer as expected: {_reason(error)}") from error
    here = found["client"]["packages"]
    there: dict[str, tuple[Any, tuple[str, ...]]] = {
        f"the scheduler at {address}": (found["scheduler"], _SHARED_PACKAGES)
    }
    for worker, one in found["workers"].items():
        there[f"the worker at {worker}"] = (one, (*_SHARED_PACKAGES, *PACKAGES))
    for who, (one, names) in there.items():
        packages = (one or {}).get("packages", {})
        for name in names:
            if packages.get(name) != here.get(name):
                raise ClusterError(
                    f"{who} has {name} {_version(packages.get(name))}, here it is {_version(here.get(name))}; "
                    "run both in the same environment"
                )


def _version(value: Any) -> str:
    return "unknown or missing" if value is None else str(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """A context without the log messages and warnings of distributed: the sweep says what matters."""
    names = ("distributed", "tornado", "asyncio")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        # _check_versions is stricter and says it in one line
        warnings.filterwarnings("ignore", message="\\s*Mismatched versions found")
        # another sweep may run on this machine
        warnings.filterwarnings("ignore", message="Port \\d+ is already in use")
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        yield
    # not after an error: what threads of distributed still say of it has been said in one line
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _reason(error: BaseException) -> str:
    return first_line(error).rstrip(":") or type(error).__name__
