"""Handling modules as people write them: what they need in order to be asked, and leaving them as they were."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_CONTAINERS = {dict, OrderedDict, defaultdict, list, set, deque}


@contextmanager
def as_it_was(module: nn.Module) -> Iterator[Callable[[], bool]]:
    """Puts a module into evaluation mode and its parameters out of the graph while inside, and restores modes, flags,
    gradients and the values of parameters and buffers, running statistics included.

    Gradients are put aside meanwhile: those that are taken inside would be added to them.

    What it yields says whether a value had to be restored, once the context has ended.
    """
    restored = False
    training = {part: part.training for part in module.modules()}
    wanted = {one: (one.requires_grad, one.grad) for one in module.parameters()}
    values: list[Tensor] = [*module.parameters(), *module.buffers()]
    state = [(one, one.detach().clone()) for one in values]
    buffers = [(part, dict(part._buffers)) for part in module.modules()]
    module.eval()
    freeze(module)
    for parameter in wanted:
        parameter.grad = None
    try:
        yield lambda: restored
    finally:
        for part, mode in training.items():
            part.training = mode
        for parameter, (mode, gradient) in wanted.items():
            if parameter.is_leaf:
                parameter.requires_grad_(mode)
            parameter.grad = gradient
        with torch.no_grad():
            for one, value in state:
                if not _equal(one, value):
                    one.data = value
                    restored = True
        for part, kept in buffers:  # a buffer may have been given another tensor
            for name, before in kept.items():
                now = part._buffers.get(name)
                if now is not before:
                    part._buffers[name] = before
                    restored |= before is None or now is None or not _equal(now, before)


@contextmanager
def attributes_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Restores the attributes of modules and of their parts, such as the counter of a solver or its options: which
    objects they are, and what a tensor or a container of Python's holds itself, but nothing deeper."""
    kept = [
        (part, {name: (value, _content(value)) for name, value in vars(part).items()})
        for module in modules
        for part in module.modules()
    ]
    try:
        yield
    finally:
        for part, before in kept:
            for name in vars(part).keys() - before.keys():
                del vars(part)[name]
            for name, (value, content) in before.items():
                vars(part)[name] = value
                _put_back(value, content)


def _content(value: object) -> Any:
    """A copy of what a container holds, or of a tensor and its gradient; None for anything else."""
    if isinstance(value, Tensor) and value.layout == torch.strided:
        gradient = value.grad if value.is_leaf else None
        return value.detach().clone(), None if gradient is None else gradient.clone()
    return copy.copy(value) if type(value) in _CONTAINERS else None


def _put_back(value: Any, content: Any) -> None:
    if content is None:
        return
    if isinstance(value, Tensor):
        values, gradient = content
        if not _equal(value, values):
            same = value.shape == values.shape and value.dtype == values.dtype
            with torch.inference_mode(value.is_inference()), torch.no_grad():
                if same:  # other tensors may share what it holds
                    value.copy_(values)
                else:
                    value.data = values
        if value.is_leaf:
            value.grad = gradient
    else:
        value.clear()
        value.extend(content) if type(value) in (list, deque) else value.update(content)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same, where NaN equals NaN."""
    if one.shape != other.shape or torch.equal(one, other):
        return one.shape == other.shape
    return one.is_floating_point() and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def freeze(module: nn.Module, *, frozen: bool = True) -> None:
    """Takes the parameters of a module out of the graph, or puts them in; those that are computed stay as they are."""
    for one in module.parameters():
        if one.is_leaf and one.is_floating_point():
            one.requires_grad_(not frozen)


def copy_of(module: nn.Module) -> nn.Module:
    """A deep copy of a module, also where it keeps tensors that were computed, such as its last activation or a weight
    under weight normalisation: torch copies no tensor of a graph. The copies are cut off from it."""
    memo: dict[int, object] = {}
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(module, memo)
