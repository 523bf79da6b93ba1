"""The process of an entry's code without a process: the same frames, orders and answers, in none of its seconds."""

from __future__ import annotations

import tempfile
import threading
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from odebench.errors import ModelAnswerError
from odebench.io.frame import PREFIX, decode_frame, encode_frame, frame_lengths
from odebench.io.text import printable
from odebench.model import audit_hook
from odebench.model.audit_hook import Guard
from odebench.model.blueprint import Blueprint
from odebench.model.definition import Contributed
from odebench.model.process import ModelProcess
from odebench.model.process_program import _line, _Served
from odebench.numerics.precision import full_fp32

_TURN = threading.RLock()
"""The guard is one for all that runs here, so one program runs at a time."""


class LocalProcess(ModelProcess):
    """A ModelProcess whose program runs here, under the guard alone, while it is asked."""

    def start(self) -> None:
        self.number = 0
        self._stack = ExitStack()
        self._guard: Guard | None = None
        self._served: _Served | None = None
        self._process = True  # type: ignore[assignment]

    def exchange(
        self, order: dict[str, Any], tensors: dict[str, Tensor], *, most: int, seconds: float
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        with _TURN:
            return self._answered(*_passed(order | {"number": self.number}, tensors))

    def _answered(self, sent: dict[str, Any], held: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if self._served is None:
            blueprint = Blueprint.of_order(sent, held)
            scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="odebench-")))
            if isinstance(blueprint.origin, Contributed):
                self._guard = Guard(blueprint.origin.folder, scratch)
            self._served = _Served(blueprint, self._guard, self._stack)
        try:
            with full_fp32(), nullcontext() if self._guard is None else self._guard.watching():
                header, answer = self._served.answer(sent, held)
            return _passed(header, answer)
        except Exception as error:
            failed = f"answer {self.what}" if self.number else "build the model"
            raise ModelAnswerError(f"the model's process cannot {failed}: {printable(_line(error))}") from error

    def close(self) -> None:
        with _TURN:
            if self._process is not None:
                self._process = None
                active, audit_hook._active = audit_hook._active, None  # another's, where this one is not wanted now
                try:
                    self._stack.close()
                finally:
                    audit_hook._active = active


def _passed(header: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What comes out at the other end of a pipe."""
    frame = encode_frame(header, tensors)
    text, _ = frame_lengths(frame[:PREFIX])
    return decode_frame(frame[PREFIX : PREFIX + text], frame[PREFIX + text :])
