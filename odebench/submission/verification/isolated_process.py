"""Contributed code in a process of its own: guarded, without the environment's secrets, answering in JSON alone."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

from pydantic import Field, ValidationError

from odebench.dataset import load_dataset
from odebench.errors import ModelError
from odebench.io.folders import cache_folder, published_folder
from odebench.io.text import printable
from odebench.protocol.spec import Spec
from odebench.submission.limits import TIME_LIMIT
from odebench.submission.verification.guard import Breach, Guard
from odebench.submission.verification.jobs import Inspected, Job, inspect

_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT", "ODEBENCH_DATA")
"""The environment variables that the process gets, with those of threads and GPUs: no tokens, no keys."""
_KEPT_STARTS = ("OMP_", "MKL_", "CUDA_", "CUBLAS_")
_PROGRAM = "from odebench.submission.verification.isolated_process import main; main()"
_SHOWN = 300


class ProcessAnswer(Spec):
    """The answer of the process: what it found for each job, and what was refused to the entry's code."""

    inspected: Annotated[tuple[Inspected, ...], Field(strict=False)]
    breaches: Annotated[tuple[Breach, ...], Field(strict=False)]


def inspect_in_subprocess(
    folder: Path,
    jobs: Sequence[Job],
    *,
    device: str = "cpu",
    data_dir: Path | None = None,
    time_limit: int = TIME_LIMIT,
) -> ProcessAnswer:
    """The answers of models that an entry's own code builds, from another process. Transfer sources and data sets must
    exist already, since the process may not write them.

    Raises ModelError where the process ends without a readable answer, or has not answered after `time_limit` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="odebench-") as scratch:
        data = None if data_dir is None else data_dir.absolute()
        arguments = {"folder": folder.absolute(), "jobs": tuple(jobs), "scratch": Path(scratch)}
        order = pickle.dumps({**arguments, "device": device, "data_dir": data})
        try:
            code, said, errors = _run(order, scratch, time_limit)
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                f"{folder}'s code has not answered after {time_limit} s and was stopped; where that is honest work, "
                "give it longer: --time-limit"
            ) from error
    try:
        return ProcessAnswer.model_validate_json(said)
    except ValidationError as error:
        lines = printable(errors.decode(errors="replace").strip()[-_SHOWN:]) or "it said nothing"
        raise ModelError(
            f"the process that ran {folder}'s code ended with code {code} and no answer: {lines}"
        ) from error


def _run(order: bytes, scratch: str, time_limit: int) -> tuple[int, bytes, bytes]:
    """Exit code, standard output and error of the process, which is killed, with all that it started, in any case."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _PROGRAM]
    apart: dict[str, Any] = {"env": _environment(scratch), "cwd": scratch, "start_new_session": True}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, **apart) as process:
        try:
            said, errors = process.communicate(order, timeout=time_limit)
        finally:
            _end(process)
    return process.returncode, said, errors


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and its process group, if they still run."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()


def inspect_guarded(
    folder: Path, jobs: Sequence[Job], *, scratch: Path, device: str = "cpu", data_dir: Path | None = None
) -> ProcessAnswer:
    """The answers of the models, in this process and with the guard on."""
    _import_what_forks()
    guard = Guard(folder, scratch)
    names = {job.diagnosis.evaluation.dataset.name for job in jobs}
    data = {name: load_dataset(name, data_dir=data_dir) for name in sorted(names)}
    with audited_writers(), guard.watching():
        inspected = inspect(jobs, data, device=device)
    return ProcessAnswer(inspected=tuple(inspected), breaches=tuple(dict.fromkeys(guard.breaches)))


@contextmanager
def audited_writers() -> Iterator[None]:
    """A context in which the native writers of torch and safetensors raise audit events for the files they open."""
    import safetensors.numpy
    import safetensors.torch
    import torch

    writers: list[tuple[Any, str]] = [
        (torch._C, "PyTorchFileWriter"),
        (safetensors.torch, "serialize_file"),
        (safetensors.numpy, "serialize_file"),
    ]
    with ExitStack() as stack:
        for owner, name in writers:
            if hasattr(owner, name):
                stack.enter_context(patch.object(owner, name, _audited(getattr(owner, name))))
        yield


def _audited(writer: Callable[..., Any]) -> Callable[..., Any]:
    def telling(*arguments: Any, **options: Any) -> Any:
        for path in (*arguments, *options.values()):
            if isinstance(path, str | bytes | os.PathLike):
                sys.audit("open", path, "wb", os.O_WRONLY)
        return writer(*arguments, **options)

    return telling


def _environment(scratch: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if name in _KEPT or name.startswith(_KEPT_STARTS)}
    published = published_folder()
    return kept | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, sys.path)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": scratch,
        "ODEBENCH_CACHE": str(cache_folder().absolute()),
        "ODEBENCH_LEADERBOARD": "" if published is None else str(published.path.absolute()),
    }


def main() -> None:
    """The program of the process: reads the arguments of `inspect_guarded`, and writes its answer as JSON."""
    arguments: dict[str, Any] = pickle.load(sys.stdin.buffer)
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the code prints is not part of the answer
    sys.stdin = io.StringIO()
    answer.write(inspect_guarded(**arguments).model_dump_json().encode())
    answer.flush()
    os._exit(0)  # so that no code of the entry runs once the guard is off


def _import_what_forks() -> None:
    """Imports packages that start processes or write files when first imported, before the guard refuses that."""
    import foolbox  # noqa: F401
    import pyautoattack  # noqa: F401
    import torchdiffeq  # noqa: F401
    import torchode  # noqa: F401
