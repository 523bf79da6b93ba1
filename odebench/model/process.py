"""One door to a model that runs in a process of its own: started, told how to build it, asked numbered questions.

The child is a fresh interpreter, started by subprocess; nothing is forked. Frames (odebench.io.frame: lengths, a JSON
header, safetensors) travel over a pipe in each direction; the child gets the descriptors as arguments, and its standard
streams are the null device. Question 0 says how to build the classifier (Blueprint), every later one is a Question:

    parent -> child   number 0, token, kind ("recipe", "entry" or "pickle"), ...       [pickle]
    child -> parent   number 0, token
    parent -> child   number 1, token, precision, horizon, solver, seed, gradients     images[, cotangents]
    child -> parent   number 1, token                                                  logits, failed[, nfe, gradients]

The token is drawn at random for each question, so that no answer comes before its question. Instead of tensors the
child may send an error, one line. The parent unpickles nothing and believes nothing: numbers, names, types, shapes and
sizes must be those that the question calls for. A module is pickled (by cloudpickle) in the parent and unpickled in the
child alone.

Whatever goes wrong ends the process with all of its process group and is one ModelProcessError. The child ends with its
parent: at the end of its pipe, and on Linux by a signal, which the end of the thread that started it sends, too. It is
apart for the sake of a fresh state, not of safety: its code has all rights of the user.
"""

from __future__ import annotations

import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor

from odebench.errors import ModelProcessError
from odebench.io.frame import PREFIX, decode_frame, encode_frame, frame_lengths
from odebench.io.text import printable
from odebench.model.blueprint import Blueprint
from odebench.model.question import ProcessAnswer, Question

_PROGRAM = "from odebench.model.process_program import main; main()"
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONHASHSEED")
"""The environment variables that the child gets, with those of threads and processors: no tokens, no keys."""
_KEPT_STARTS = ("OMP_", "MKL_", "KMP_", "CUDA_", "CUBLAS_", "ATEN_", "ONEDNN_", "DNNL_")
_MOST_TEXT = 1 << 16
"""The most bytes of an answer's JSON, and of the header of its tensors."""
_GOODBYE = 1.0
"""Seconds that a child which has closed its pipe gets to end by itself, so that its exit code can be told."""
_END_SECONDS = 10.0
"""Seconds that the system gets to end a killed process."""


class ModelProcess:
    """The model of a blueprint in a process of its own, while inside the context; it has answered nothing at first.

    `build_seconds` and `answer_seconds` are how long it may take to start and build, and to answer one question.
    """

    def __init__(self, blueprint: Blueprint, *, build_seconds: float = 120.0, answer_seconds: float = 600.0) -> None:
        self.blueprint = blueprint
        self.build_seconds, self.answer_seconds = build_seconds, answer_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0

    def __enter__(self) -> ModelProcess:
        """Starts the process and waits until the model is built. Raises ModelProcessError."""
        self._start()
        try:
            self._exchange(*self.blueprint.order(torch.get_num_threads()), most=0, seconds=self.build_seconds)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, question: Question, *, seconds: float | None = None) -> ProcessAnswer:
        """The answer to a question, within `seconds` (None: `answer_seconds`). Raises ModelProcessError, after which
        the process is gone."""
        if self._process is None:
            raise ModelProcessError("the model's process has ended: start another one")
        self._number += 1
        size, n_classes = len(question.images), self.blueprint.n_classes
        products = 0 if question.cotangents is None else len(question.cotangents)
        most = size * (8 * n_classes + 1 + 8) + products * question.images.numel() * 8
        try:
            seconds = self.answer_seconds if seconds is None else seconds
            tensors = self._exchange(*question.order(), most=most, seconds=seconds)
            return self._checked(question, tensors)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the process with its process group, if it still runs, and deletes its scratch folder."""
        process, self._process = self._process, None
        if process is None:
            return
        with self._held:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)

    def _start(self) -> None:
        if not hasattr(os, "killpg"):
            raise ModelProcessError("a model's process needs Linux or macOS: there are no process groups here")
        self._number = 0
        try:
            with ExitStack() as ours, ExitStack() as theirs:
                scratch = ours.enter_context(
                    tempfile.TemporaryDirectory(prefix="odebench-", ignore_cleanup_errors=True)
                )
                their_in, self._to = _pipe(read=theirs, write=ours)
                self._from, their_out = _pipe(read=ours, write=theirs)
                os.set_blocking(self._to, False)
                null = subprocess.DEVNULL
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, *map(str, (their_in, their_out, os.getpid()))],
                    stdin=null,
                    stdout=null,
                    stderr=null,
                    cwd=scratch,
                    env=_environment(scratch),
                    pass_fds=(their_in, their_out),
                    start_new_session=True,
                )
                self._held = ours.pop_all()
        except OSError as error:
            raise ModelProcessError(f"the model's process cannot be started: {error.strerror or error}") from error

    def _exchange(
        self, order: dict[str, JsonValue], tensors: dict[str, Tensor], *, most: int, seconds: float
    ) -> dict[str, Tensor]:
        """The tensors of the answer to an order, of at most `most` bytes beside their header."""
        what, token = self._what, _token()
        frame = encode_frame(order | {"number": self._number, "token": token}, tensors)
        deadline = time.monotonic() + seconds
        early = f"the model's process spoke before it was sent {what}"
        if _ready(self._from, selectors.EVENT_READ, 0):
            self._read(1, deadline)
            raise ModelProcessError(early)
        try:
            self._write(frame, deadline)
            text, body = frame_lengths(self._read(PREFIX, deadline))
            if text > _MOST_TEXT or body > most + _MOST_TEXT:
                raise ModelProcessError(
                    f"the model's process answers {what} with {text + body} bytes; at most {most + 2 * _MOST_TEXT} fit"
                )
            header, answer = decode_frame(self._read(text, deadline), self._read(body, deadline))
        except TimeoutError as error:
            raise ModelProcessError(f"the model's process has not answered {what} within {seconds:g} s") from error
        except ValueError as error:
            raise ModelProcessError(f"the model's process answers {what} unreadably: {error}") from error
        number, line = header.get("number"), header.get("error", "")
        if type(number) is not int or not isinstance(line, str):
            raise ModelProcessError(f"the model's process answers {what} without a number, or errs without words")
        if number != self._number:
            raise ModelProcessError(f"the model's process answers question {printable(str(number))}, not {what}")
        if header.get("token") != token:
            raise ModelProcessError(early)
        if "error" in header:
            failed = f"answer {what}" if self._number else "build the model"
            raise ModelProcessError(f"the model's process cannot {failed}: {printable(line)}")
        return answer

    @property
    def _what(self) -> str:
        return f"question {self._number}" if self._number else "the order to build the model"

    def _write(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            _wait(self._to, selectors.EVENT_WRITE, deadline)
            try:
                rest = rest[os.write(self._to, rest[: 1 << 20]) :]
            except BrokenPipeError as error:
                raise self._end() from error

    def _read(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            _wait(self._from, selectors.EVENT_READ, deadline)
            part = os.read(self._from, min(size - len(data), 1 << 20))
            if not part:
                raise self._end()
            data += part
        return bytes(data)

    def _end(self) -> ModelProcessError:
        """The error that says how a process ended which has closed its pipe."""
        assert self._process is not None
        try:
            code = self._process.wait(_GOODBYE)
        except subprocess.TimeoutExpired:
            return ModelProcessError(f"the model's process closed its pipe instead of an answer to {self._what}")
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        return ModelProcessError(f"the model's process ended {how} instead of an answer to {self._what}")

    def _checked(self, question: Question, tensors: dict[str, Tensor]) -> ProcessAnswer:
        """The answer, if it has the tensors, types and shapes that the question calls for."""
        n, dtype = len(question.images), question.dtype
        wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "logits": (dtype, (n, self.blueprint.n_classes)),
            "failed": (torch.bool, (n,)),
        }
        if "nfe" in tensors:
            wanted["nfe"] = torch.int64, (n,)
        if question.cotangents is not None:
            wanted["gradients"] = dtype, (len(question.cotangents), *question.images.shape)
        found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        start = f"the model's process answers {self._what} with"
        if found != wanted:
            shown, expected = (
                ", ".join(f"{name} {kind} {shape}" for name, (kind, shape) in sorted(each.items()))
                for each in (found, wanted)
            )
            raise ModelProcessError(f"{start} {printable(shown) or 'nothing'}; expected {expected}")
        logits, failed = tensors["logits"], tensors["failed"]
        if not logits.isfinite().all():
            raise ModelProcessError(f"{start} logits that are not finite")
        return ProcessAnswer(logits, failed, tensors.get("nfe"), tensors.get("gradients"))


def _token() -> str:
    """A text that nobody knows before the question that it comes with."""
    return secrets.token_hex(8)


def _pipe(*, read: ExitStack, write: ExitStack) -> tuple[int, int]:
    """The two ends of a new pipe, which are closed with the stacks."""
    reading, writing = os.pipe()
    read.callback(os.close, reading)
    write.callback(os.close, writing)
    return reading, writing


def _wait(descriptor: int, event: int, deadline: float) -> None:
    """Waits until a descriptor is ready. Raises TimeoutError after the deadline."""
    left = deadline - time.monotonic()
    if left <= 0 or not _ready(descriptor, event, left):
        raise TimeoutError


def _ready(descriptor: int, event: int, seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, event)
        return bool(selector.select(seconds))


def _environment(scratch: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if name in _KEPT or name.startswith(_KEPT_STARTS)}
    paths = [str(Path(__file__).parents[2]), *(os.path.abspath(path) for path in sys.path)]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": scratch}
