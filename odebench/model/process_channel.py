"""The pipe to a child process that speaks frames: started behind walls, sent numbered orders, ended.

The protocol stands in odebench.model.process.
"""

from __future__ import annotations

import os
import secrets
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from torch import Tensor

from odebench.errors import ModelAnswerError, ModelProcessError
from odebench.io.frame import PREFIX, decode_frame, encode_frame, frame_lengths
from odebench.io.scratch import scratch_folder
from odebench.io.text import printable
from odebench.model.wall import NOT_RAISED

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
_LOOK_SECONDS = 0.2
"""How soon a thread that waits for an answer sees that the process was closed by another."""
_F_SETPIPE_SZ, _PIPE_BYTES = 1031, 1 << 20


@dataclass
class TimeBudget:
    """How many of `seconds` are left to the processes that share it, of the time in which they are waited for."""

    seconds: float
    spent: float = 0.0

    @property
    def left(self) -> float:
        return max(0.0, self.seconds - self.spent)


class ProcessChannel:
    """A child process and the pipes to it. `terms` are its last arguments; processes of one `budget` share its time."""

    def __init__(self, terms: Sequence[str], budget: TimeBudget | None) -> None:
        self.terms, self.budget = tuple(terms), budget
        self.number = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._exchanging = threading.Lock()

    @property
    def open(self) -> bool:
        """Whether the process was started and has not been ended from here."""
        return self._process is not None

    def close(self) -> None:
        """Ends the process with its process group, if it still runs, and deletes its scratch folder. An exchange in
        another thread ends first: nobody would tell it that the pipe it waits for is closed here."""
        process, self._process = self._process, None
        if process is None:
            return
        with self._held:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
            if self._exchanging.acquire(timeout=_END_SECONDS):
                self._exchanging.release()

    def start(self) -> None:
        """Starts the child. Raises ModelProcessError."""
        if not hasattr(os, "killpg"):
            raise ModelProcessError("a model's process needs Linux or macOS: there are no process groups here")
        self.number = 0
        try:
            with ExitStack() as ours, ExitStack() as theirs:
                scratch = str(ours.enter_context(scratch_folder()))
                their_in, self._to = _pipe(read=theirs, write=ours)
                self._from, their_out = _pipe(read=ours, write=theirs)
                os.set_blocking(self._to, False)
                null = subprocess.DEVNULL
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, *map(str, (their_in, their_out, os.getpid())), *self.terms],
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

    def exchange(
        self, order: dict[str, JsonValue], tensors: dict[str, Tensor], *, most: int, seconds: float
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The header and tensors of the answer to an order; these are of at most `most` bytes beside their header.

        Raises ModelAnswerError for an error that the child sends, ModelProcessError for all else.
        """
        with self._exchanging:
            return self._exchanged(order, tensors, most=most, seconds=seconds)

    def _exchanged(
        self, order: dict[str, JsonValue], tensors: dict[str, Tensor], *, most: int, seconds: float
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        what, token, started = self.what, _token(), time.monotonic()
        frame = encode_frame(order | {"number": self.number, "token": token}, tensors)
        deadline = started + (seconds if self.budget is None else min(seconds, self.budget.left))
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
            raise self._late(seconds) from error
        except ValueError as error:
            raise ModelProcessError(f"the model's process answers {what} unreadably: {error}") from error
        finally:
            if self.budget is not None:
                self.budget.spent += time.monotonic() - started
        number, line = header.get("number"), header.get("error", "")
        if type(number) is not int or not isinstance(line, str):
            raise ModelProcessError(f"the model's process answers {what} without a number, or errs without words")
        if number != self.number:
            raise ModelProcessError(f"the model's process answers question {printable(str(number))}, not {what}")
        if header.get("token") != token:
            raise ModelProcessError(early)
        if "error" in header:
            failed = f"answer {what}" if self.number else "build the model"
            raise ModelAnswerError(f"the model's process cannot {failed}: {printable(line)}")
        return header, answer

    def _late(self, seconds: float) -> ModelProcessError:
        budget = self.budget
        if budget is not None and budget.spent + seconds > budget.seconds:
            return ModelProcessError(
                f"the model's process has not answered after {budget.seconds:g} s and was stopped; where that is "
                "honest work, give it longer: --time-limit"
            )
        return ModelProcessError(f"the model's process has not answered {self.what} within {seconds:g} s")

    @property
    def what(self) -> str:
        """The last order, in words."""
        return f"question {self.number}" if self.number else "the order to build the model"

    def _write(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            self._wait(self._to, selectors.EVENT_WRITE, deadline)
            try:
                rest = rest[os.write(self._to, rest[: 1 << 20]) :]
            except BrokenPipeError as error:
                raise self._end() from error

    def _read(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait(self._from, selectors.EVENT_READ, deadline)
            part = os.read(self._from, min(size - len(data), 1 << 20))
            if not part:
                raise self._end()
            data += part
        return bytes(data)

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        """Waits until a descriptor is ready. Raises TimeoutError after the deadline, ModelProcessError once closed."""
        while self.open:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if _ready(descriptor, event, min(left, _LOOK_SECONDS)):
                return
        raise self._stopped()

    def _stopped(self) -> ModelProcessError:
        return ModelProcessError(f"the model's process was stopped before it answered {self.what}")

    def _end(self) -> ModelProcessError:
        """The error that says how a process ended which has closed its pipe."""
        process = self._process
        if process is None:
            return self._stopped()
        try:
            code = process.wait(_GOODBYE)
        except subprocess.TimeoutExpired:
            return ModelProcessError(f"the model's process closed its pipe instead of an answer to {self.what}")
        if code == NOT_RAISED:
            return ModelProcessError("the model's process could not raise the walls that this system grants")
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        return ModelProcessError(f"the model's process ended {how} instead of an answer to {self.what}")


def _token() -> str:
    """A text that nobody knows before the question that it comes with."""
    return secrets.token_hex(8)


def _pipe(*, read: ExitStack, write: ExitStack) -> tuple[int, int]:
    """The two ends of a new pipe, which are closed with the stacks."""
    reading, writing = os.pipe()
    with suppress(ImportError, OSError, ValueError):  # a batch of images in fewer pieces
        import fcntl

        fcntl.fcntl(writing, _F_SETPIPE_SZ, _PIPE_BYTES)
    read.callback(os.close, reading)
    write.callback(os.close, writing)
    return reading, writing


def _ready(descriptor: int, event: int, seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, event)
        return bool(selector.select(seconds))


def _environment(scratch: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if name in _KEPT or name.startswith(_KEPT_STARTS)}
    paths = [str(Path(__file__).parents[2]), *(os.path.abspath(path) for path in sys.path)]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": scratch}
