"""One door to a model that runs in a process of its own: started, told how to build it, asked numbered questions.

The child is a fresh interpreter, started by subprocess; nothing is forked. Frames (odebench.io.frame: lengths, a JSON
header, safetensors) travel over a pipe in each direction; the child gets the descriptors as arguments, and its standard
streams are the null device. Order 0 says how to build the classifier (Blueprint), every later one asks something:

    parent -> child   number 0, token, kind ("recipe", "entry" or "pickle"), ...       [pickle]
    child -> parent   number 0, token, parameters
    parent -> child   number 1, token, precision, horizon, solver, seed, gradients     images[, cotangents]
    child -> parent   number 1, token                                                  logits, failed[, nfe, gradients]
    parent -> child   number 2, token, asks ("product", "part", "unfreeze", "report")  ...

The token is drawn at random for each question, so that no answer comes before its question. Instead of tensors the
child may send an error, one line. The parent unpickles nothing and believes nothing: numbers, names, types, shapes and
sizes must be those that the question calls for. A module is pickled (by cloudpickle) in the parent and unpickled in the
child alone.

An error that the child sends is a ModelAnswerError, after which it can be asked on. Whatever else goes wrong ends the
process with all of its process group and is one ModelProcessError. The child ends with its parent: at the end of its
pipe, and on Linux by a signal, which the end of the thread that started it sends, too. The code of an entry runs behind
the walls that the system grants (odebench.model.wall); other models are apart for the sake of a fresh state alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from pydantic import JsonValue
from torch import Tensor

from odebench.errors import ModelAnswerError, ModelProcessError
from odebench.io.text import printable
from odebench.model.audit_hook import Breach
from odebench.model.blueprint import Blueprint
from odebench.model.definition import Contributed
from odebench.model.process_channel import ProcessChannel, TimeBudget
from odebench.model.question import ProcessAnswer, Question, check_tensors, checked_answer
from odebench.model.wall import MEMORY, granted_walls

Checked = TypeVar("Checked")
_MOST_STATE = 1 << 24


@dataclass(frozen=True)
class ProcessReport:
    """What a process says of its model: how it `changed` while it was asked (None: not at all), and what its code was
    refused. The code of the model could say otherwise."""

    changed: str | None
    breaches: tuple[Breach, ...]


class ModelProcess(ProcessChannel):
    """The model of a blueprint in a process of its own, while inside the context; it has answered nothing at first.

    `build_seconds` and `answer_seconds` are how long it may take to start and build, and to answer one question.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        build_seconds: float = 120.0,
        answer_seconds: float = 600.0,
        budget: TimeBudget | None = None,
    ) -> None:
        self.blueprint = blueprint
        self.build_seconds, self.answer_seconds = build_seconds, answer_seconds
        contributed = isinstance(blueprint.origin, Contributed)
        on_card = blueprint.device.startswith("cuda")  # whose driver maps more memory than there is
        self.walls = tuple(one for one in granted_walls() if one != MEMORY or not on_card) if contributed else ()
        super().__init__(_terms(blueprint, self.walls), budget)
        self.parameters = 0
        self._forgotten: list[JsonValue] = []
        self._why = ""  # of what it ended, if it did before it was asked to

    def __enter__(self) -> ModelProcess:
        """Starts the process and waits until the model is built. Raises ModelProcessError."""
        self.start()
        self._forgotten.clear()
        try:
            order = self.blueprint.order(torch.get_num_threads())
            header, _ = self.exchange(*order, most=0, seconds=self.build_seconds)
        except BaseException:
            self.close()
            raise
        parameters = header.get("parameters", 0)
        self.parameters = parameters if type(parameters) is int and 0 <= parameters < 10**12 else 0
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, question: Question, *, seconds: float | None = None) -> ProcessAnswer:
        """The answer to a question, within `seconds` (None: `answer_seconds`). Raises ModelAnswerError where the model
        does, and ModelProcessError, after which the process is gone. `number` is that of the question then."""
        size, n_classes = len(question.images), self.blueprint.n_classes
        products = 0 if question.cotangents is None else len(question.cotangents)
        most = size * (8 * n_classes + 1 + 8) + products * question.images.numel() * 8
        header, tensors = self._asked(*question.order(), most=most, seconds=seconds)
        answer = self._kept_to(lambda start: checked_answer(question, tensors, n_classes, start))
        return replace(answer, differentiable=header.get("differentiable") is not False)

    def product(self, number: int, cotangent: Tensor, images: Tensor) -> Tensor:
        """The gradient at the `images` of an earlier question, which kept them, of the sum of logits times `cotangent`.
        Raises as `ask` does."""
        order: dict[str, JsonValue] = {"asks": "product", "of": number}
        _, tensors = self._asked(order, {"cotangent": cotangent}, most=images.numel() * 8)
        wanted = {"product": (images.dtype, tuple(images.shape))}
        self._kept_to(lambda start: check_tensors(tensors, wanted, start))
        return tensors["product"]

    def part(self, name: str, *given: Tensor, shape: tuple[int, ...] | None) -> Tensor:
        """What the stem, field or head of the model makes of tensors, in fp32, of this shape (None: one row for each of
        the tensor, at most 2^24 numbers). Raises as `ask` does."""
        most = _MOST_STATE if shape is None else math.prod(shape)
        tensors = {f"{index}": tensor for index, tensor in enumerate(given)}
        _, found = self._asked({"asks": "part", "part": name}, tensors, most=4 * most)
        here = tuple(found["part"].shape) if shape is None and "part" in found else shape or ()
        if shape is None and here[:1] != given[-1].shape[:1]:
            here = tuple(given[-1].shape[:1])
        self._kept_to(lambda start: check_tensors(found, {"part": (torch.float32, here)}, start))
        return found["part"]

    def unfreeze(self, images: Tensor) -> bool:
        """Has the model put its parameters into the graph if its gradient needs them; whether it did. Raises as `ask`
        does."""
        header, _ = self._asked({"asks": "unfreeze"}, {"images": images}, most=0)
        return header.get("unfrozen") is True

    def report(self) -> ProcessReport:
        """What the process says of its model. Raises as `ask` does."""
        header, _ = self._asked({"asks": "report"}, {}, most=0)
        changed, breaches = header.get("changed"), header.get("breaches")
        listed = breaches if isinstance(breaches, list) else []
        texts = [one for one in listed if isinstance(one, list) and len(one) == 2]
        return ProcessReport(
            printable(changed) if isinstance(changed, str) else None,
            tuple(Breach(what=printable(str(what)), where=printable(str(where))) for what, where in texts),
        )

    def forget(self, number: int) -> None:
        """Says with the next order that the images of an earlier question need not be kept."""
        self._forgotten.append(number)

    def _asked(
        self, order: dict[str, JsonValue], tensors: dict[str, Tensor], *, most: int, seconds: float | None = None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if not self.open:
            why = f" ({self._why})" if self._why else ""
            raise ModelProcessError(f"the model's process has ended: start another one{why}")
        self.number += 1
        forgotten, self._forgotten = self._forgotten, []
        order = order | {"forget": forgotten} if forgotten else order
        try:
            return self.exchange(order, tensors, most=most, seconds=self.answer_seconds if seconds is None else seconds)
        except ModelAnswerError:
            raise
        except BaseException as error:
            self._why = str(error)
            self.close()
            raise

    def _kept_to(self, check: Callable[[str], Checked]) -> Checked:
        """What `check` returns, which gets the beginning of the error for an answer that does not fit its question."""
        try:
            return check(f"the model's process answers {self.what} with")
        except BaseException as error:
            self._why = str(error)
            self.close()
            raise


def _terms(blueprint: Blueprint, walls: tuple[str, ...]) -> list[str]:
    """The arguments that name the walls, the device, and the paths that an entry's code needs behind them."""
    origin, weights = blueprint.origin, blueprint.weights
    needed = [str(origin.folder)] if isinstance(origin, Contributed) else []
    return [",".join(walls), blueprint.device, *needed, *([] if weights is None else [str(weights)])]
