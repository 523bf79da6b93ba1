"""The program of a model's own process: builds a classifier and answers what it is asked until its pipe ends.

The protocol stands in odebench.model.process. Torch is imported once the process is sure to end with its parent, and
behind the walls; the code of an entry is imported once all walls stand.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from odebench.errors import OdebenchError
from odebench.io.text import first_line
from odebench.model.wall import MEMORY, NOT_RAISED, filter_calls, missing, raise_walls

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from odebench.model.classifier import Classifier
    from odebench.model.question import Kept

_PR_SET_PDEATHSIG = 1
_LONGEST = 2000
_MOST_BREACHES = 10


def main() -> None:
    """Reads frames from the first descriptor of the arguments, answers on the second; the third is the parent's id, the
    fourth names the walls to raise, the fifth the device, and all others are paths that are needed behind the walls."""
    questions, answers, parent = map(int, sys.argv[1:4])
    _end_with(parent)
    if walls := sys.argv[4].split(",") if sys.argv[4] else []:
        _raise(walls, device=sys.argv[5], needed=sys.argv[6:])
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


def _raise(walls: list[str], *, device: str, needed: list[str]) -> None:
    """Raises the walls, and ends the process where one of them cannot be raised."""
    raised = raise_walls(os.getcwd(), needed=needed, memory=MEMORY in walls)
    import torch  # these start processes, and the driver of a card may, when they are first imported
    import torchdiffeq  # noqa: F401
    import torchode  # noqa: F401

    if device.startswith("cuda"):
        torch.zeros(1, device=device)
    if set(missing([*raised, *filter_calls()])) & set(walls):
        os._exit(NOT_RAISED)


def _serve(reader: BinaryIO, writer: BinaryIO) -> None:
    import torch

    from odebench.io.frame import encode_frame
    from odebench.model.audit_hook import Guard
    from odebench.model.blueprint import Blueprint
    from odebench.model.definition import Contributed
    from odebench.numerics.precision import full_fp32

    order, tensors = _read(reader)
    torch.set_num_threads(order["threads"])
    blueprint = Blueprint.of_order(order, tensors)
    with full_fp32(), ExitStack() as stack:
        guard = None
        if isinstance(blueprint.origin, Contributed):
            import torchvision  # noqa: F401 - it loads a library, which the guard refuses an entry

            guard = Guard(blueprint.origin.folder, Path.cwd())
            stack.enter_context(guard.watching())
        served = _Served(blueprint, guard, stack)
        while True:
            mark = {"number": order["number"], "token": order["token"]}
            try:
                said, answer = served.answer(order, tensors)
                frame = encode_frame(mark | said, answer)
            except Exception as error:  # the model's code may raise anything
                frame = encode_frame(mark | {"error": _line(error)}, {})
            writer.write(frame)
            writer.flush()
            try:
                order, tensors = _read(reader)
            except EOFError:
                return


class _Served:
    """The models of a blueprint, one in each precision, and the images that are kept for gradients."""

    def __init__(self, blueprint: Any, guard: Any, stack: ExitStack) -> None:
        self.blueprint, self.guard, self.stack = blueprint, guard, stack
        self.built: dict[torch.dtype, Classifier] = {}
        self.kept: dict[int, Kept] = {}

    def answer(self, order: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What is said beside the number of an order, and the tensors of its answer."""
        import torch

        for number in order.get("forget", ()):
            self.kept.pop(number, None)
        asks = order.get("asks", "answer") if order["number"] else "build"
        if asks == "build":
            built = self._classifier(torch.float32)
            self.before = _state(built.module)
            return {"parameters": built.parameters}, {}
        if asks == "answer":
            return self._answer(order, tensors)
        if asks == "product":
            return {}, {"product": self.kept[order["of"]].product(tensors["cotangent"])}
        if asks == "unfreeze":
            classifier = self._classifier(torch.float32)
            return {"unfrozen": classifier.unfreeze_if_needed(tensors["images"].to(classifier.device))}, {}
        if asks == "part":
            return {}, {"part": self._part(order["part"], tensors)}
        return {"changed": self._changed(), "breaches": self._breaches()}, {}

    def _classifier(self, dtype: torch.dtype) -> Classifier:
        if dtype not in self.built:
            self.built[dtype] = self.blueprint.build(dtype)
            self.stack.enter_context(self.built[dtype].frozen())
        return self.built[dtype]

    def _answer(self, order: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        from odebench.model.question import Question, answer_and_keep

        question = Question.of_order(order, tensors)
        answer, kept = answer_and_keep(self._classifier(question.dtype), question)
        if question.keeps:
            self.kept[order["number"]] = kept
            return {"differentiable": answer.differentiable}, answer.tensors
        return {}, answer.tensors

    def _part(self, name: str, tensors: dict[str, Tensor]) -> Tensor:
        import torch

        classifier = self._classifier(torch.float32)
        part = getattr(classifier.module, name)
        with torch.no_grad():
            found: Tensor = part(*(tensors[key].to(classifier.device) for key in sorted(tensors)))
        return found.float().cpu()

    def _changed(self) -> str | None:
        import torch

        module = self._classifier(torch.float32).module
        if training := [name or type(module).__name__ for name, part in module.named_modules() if part.training]:
            return f"{', '.join(training[:3])} stays in training mode after eval()"
        now = _state(module)
        same = now.keys() == self.before.keys() and all(torch.equal(now[name], self.before[name]) for name in now)
        return None if same else "its parameters or buffers change during evaluation"

    def _breaches(self) -> list[list[str]]:
        found = dict.fromkeys(() if self.guard is None else self.guard.breaches)
        return [[each.what[:_LONGEST], each.where[:_LONGEST]] for each in list(found)[:_MOST_BREACHES]]


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, also of those that weights files leave out."""
    return {name: one.detach().clone() for name, one in (*module.named_parameters(), *module.named_buffers())}


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
