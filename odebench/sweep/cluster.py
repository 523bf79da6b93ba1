"""Where a sweep computes: a cluster of its own on this machine, or a scheduler by its address. Needs distributed."""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
from distributed import Client, LocalCluster, Security, WorkerPlugin

from odebench.errors import OdebenchError, UsageError
from odebench.io.text import first_line
from odebench.io.versions import PACKAGES

ALLOWED_DEATHS = 20
"""How many workers may die with a task at hand before it is given up; distributed's 3 are soon reached by chance."""
CONNECT_SECONDS = 5
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": 2**25, "MALLOC_TRIM_THRESHOLD_": 2**30}
"""What glibc is told in the workers of this machine. dask sets the second alone, to 64 KiB: then every tensor above 128
KiB is mapped, cleared by the system and unmapped anew. Older versions take no more than 2^25 for the first."""
_SPEAKING = ("dask", "distributed", "python", "odebench")
"""What must agree for client, scheduler and workers to understand each other: the scheduler opens the graph, too."""


class ClusterError(OdebenchError):
    """A scheduler is not there, is gone, or computes with other packages."""


@dataclass(frozen=True)
class Tls:
    """The files that a tls:// scheduler wants: the authority, and this client's certificate and key."""

    ca: Path
    certificate: Path
    key: Path

    def security(self) -> Any:
        """What distributed connects with. Raises UsageError for a file that is not there."""
        for path in (self.ca, self.certificate, self.key):
            if not path.is_file():
                raise UsageError(f"there is no file {path} for TLS")
        return Security(
            tls_ca_file=str(self.ca),
            tls_client_cert=str(self.certificate),
            tls_client_key=str(self.key),
            require_encryption=True,
        )


class _Undisturbed(WorkerPlugin):  # type: ignore[misc]
    """Ctrl-C reaches all processes of a terminal; the sweep alone decides what becomes of its workers."""

    def setup(self, worker: Any) -> None:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _configuration() -> dict[str, Any]:
    connect = f"{CONNECT_SECONDS}s"
    return {
        "distributed.scheduler.allowed-failures": ALLOWED_DEATHS,
        # a task waits at the scheduler, not at a worker that may die with it
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.comm.timeouts.connect": connect,
        **{f"distributed.nanny.pre-spawn-environ.{name}": size for name, size in _MALLOC.items()},
        # for a machine that is gone without a word; distributed takes no less
        "distributed.comm.timeouts.tcp": "11s",
        "distributed.worker.profile.enabled": False,
        "distributed.admin.low-level-log-length": 0,
    }


@contextmanager
def local_cluster(workers: int, *, threads: int) -> Iterator[Any]:
    """A client of a scheduler in this process with `workers` processes, each of which computes with `threads`."""
    counted = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    counted["ODEBENCH_CACHE"] = os.environ.get("ODEBENCH_CACHE", "")
    environment = {name: value for name, value in counted.items() if value}
    with (
        tempfile.TemporaryDirectory(prefix="odebench-sweep-", ignore_cleanup_errors=True) as folder,
        dask.config.set(_configuration()),
        _quiet(),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=None,
            silence_logs=logging.CRITICAL,
            local_directory=folder,
            env=environment,
        ) as cluster,
        Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False) as client,
    ):
        client.register_plugin(_Undisturbed(), name="odebench-undisturbed")
        yield client


@contextmanager
def remote_cluster(address: str, *, tls: Tls | None, say: Callable[[str], None]) -> Iterator[Any]:
    """A client of the scheduler at `address`. Raises ClusterError within seconds where it cannot be worked with."""
    if not address.startswith(("tcp://", "tls://")):
        raise UsageError(f"the scheduler {address!r} must begin with tcp:// or tls://, such as tcp://127.0.0.1:8786")
    if address.startswith("tls://") != (tls is not None):
        raise UsageError(
            "a tls:// scheduler needs --tls-ca, --tls-cert and --tls-key, and a tcp:// one takes none of them"
        )
    security = None if tls is None else tls.security()
    with dask.config.set(_configuration()), _quiet():
        try:
            _knock(address)
            client = _soon(lambda: Client(address, timeout=CONNECT_SECONDS, set_as_default=False, security=security))
        except Exception as error:  # another version of distributed, or no scheduler at all, may raise anything
            raise ClusterError(
                f"no scheduler answers at {address} ({_reason(error)}); start one with `dask scheduler`, or leave "
                "out --scheduler to compute on this machine"
            ) from error
        try:
            try:
                _soon(lambda: _check_versions(client, address))
                _soon(lambda: client.run_on_scheduler(_set_scheduler, deaths=ALLOWED_DEATHS))
                _say_workers(client, say)
            except OSError as error:
                raise ClusterError(f"the scheduler at {address} is gone: {_reason(error)}") from error
            yield client
        finally:
            with suppress(Exception):
                client.close(timeout=2)


def _knock(address: str) -> None:
    """Raises OSError or ValueError where nobody listens: at once, where distributed would try for as long as it may."""
    where = urlsplit(address)
    if where.hostname is None or where.port is None:
        raise ValueError("it names no host and port")
    socket.create_connection((where.hostname, where.port), timeout=CONNECT_SECONDS).close()


def _soon(call: Callable[[], Any]) -> Any:
    """What `call` returns. Raises TimeoutError where it does not return soon: what listens may be no scheduler."""
    found: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def answer() -> None:
        try:
            found.put((call(), None))
        except BaseException as error:  # raised again where it was asked for
            found.put((None, error))

    threading.Thread(target=answer, daemon=True).start()
    try:
        value, error = found.get(timeout=CONNECT_SECONDS + 2)
    except queue.Empty:
        raise TimeoutError("it does not answer as a scheduler does") from None
    if error is not None:
        raise error
    return value


def _set_scheduler(deaths: int, dask_scheduler: Any = None) -> None:
    dask_scheduler.allowed_failures = deaths
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
    """Raises ClusterError where the scheduler or a worker has other packages than are here."""
    try:
        found = client.get_versions(check=False, packages=list(PACKAGES))
    except Exception as error:
        raise ClusterError(f"the scheduler at {address} does not answer as expected: {_reason(error)}") from error
    here = found["client"]["packages"]
    there: dict[str, tuple[Any, tuple[str, ...]]] = {f"the scheduler at {address}": (found["scheduler"], _SPEAKING)}
    for worker, one in found["workers"].items():
        there[f"the worker at {worker}"] = (one, (*_SPEAKING, *PACKAGES))
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
    """No words of distributed's own: what matters is said by the sweep."""
    names = ("distributed", "tornado", "asyncio")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        # Versions are compared more strictly, and said in one line.
        warnings.filterwarnings("ignore", message="\\s*Mismatched versions found")
        # another sweep may run on this machine
        warnings.filterwarnings("ignore", message="Port \\d+ is already in use")
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def _reason(error: BaseException) -> str:
    return first_line(error).rstrip(":") or type(error).__name__
