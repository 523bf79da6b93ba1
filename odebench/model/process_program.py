"""The program of a model's own process: builds a classifier and answers questions until its pipe ends.

The protocol stands in odebench.model.process. Torch is imported once the process is sure to end with its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from odebench.errors import OdebenchError
from odebench.io.text import first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from odebench.model.classifier import Classifier

_PR_SET_PDEATHSIG = 1
_LONGEST = 2000


def main() -> None:
    """Reads frames from the first descriptor of the arguments, answers on the second; the third is the parent's id."""
    questions, answers, parent = map(int, sys.argv[1:4])
    _end_with(parent)
    code = 1
    try:
        _serve(os.fdopen(questions, "rb"), os.fdopen(answers, "wb"))
        code = 0
    except SystemExit as error:  # the model's code has called exit
        code = error.code & 0xFF if isinstance(error.code, int) else 1
    finally:
        os._exit(code)  # at once, so that no code of the model runs once nobody listens


def _end_with(parent: int) -> None:
    """Sees to it, on Linux, that this process is killed when its parent ends."""
    with suppress(OSError, AttributeError, ValueError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _serve(reader: BinaryIO, writer: BinaryIO) -> None:
    import torch

    from odebench.io.frame import encode_frame
    from odebench.model.blueprint import Blueprint
    from odebench.model.question import Question, answer_question
    from odebench.numerics.precision import full_fp32

    order, tensors = _read(reader)
    torch.set_num_threads(order["threads"])
    blueprint = Blueprint.of_order(order, tensors)
    built: dict[torch.dtype, Classifier] = {}
    with full_fp32(), ExitStack() as frozen:

        def classifier(dtype: torch.dtype) -> Classifier:
            if dtype not in built:
                built[dtype] = blueprint.build(dtype)
                frozen.enter_context(built[dtype].frozen())
            return built[dtype]

        def answer() -> dict[str, Tensor]:
            if order["number"] == 0:
                classifier(torch.float32)
                return {}
            question = Question.of_order(order, tensors)
            return answer_question(classifier(question.dtype), question).tensors

        while True:
            mark = {"number": order["number"], "token": order["token"]}
            try:
                frame = encode_frame(mark, answer())
            except Exception as error:  # the model's code may raise anything
                frame = encode_frame(mark | {"error": _line(error)}, {})
            writer.write(frame)
            writer.flush()
            try:
                order, tensors = _read(reader)
            except EOFError:
                return


def _read(reader: BinaryIO) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The next frame. Raises EOFError at the end of the pipe."""
    from odebench.io.frame import PREFIX, decode_frame, frame_lengths

    text, body = frame_lengths(_whole(reader, PREFIX))
    return decode_frame(_whole(reader, text), _whole(reader, body))


def _whole(reader: BinaryIO, size: int) -> bytes:
    data = reader.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _line(error: Exception) -> str:
    """One line about an error, which is that of odebench's own errors as it is."""
    line = first_line(error)[:_LONGEST]
    if isinstance(error, OdebenchError):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
