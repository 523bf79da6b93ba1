"""Seeding of the random generators: each attack call gets its own random numbers and leaves the generators unchanged.

Attacks draw random numbers on the CPU and move them: a GPU's generator gives others for the same seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def call_seed(attack_seed: int, *, chunk: int, stage: str, epsilon: float) -> int:
    """The seed of one attack call: the first 4 bytes of sha256("attack_seed/chunk/stage/epsilon").

    `chunk` counts chunks in the order of the whole test set, so that it does not depend on how many are attacked.
    """
    return _number(f"{attack_seed}/{chunk}/{stage}/{epsilon!r}")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the generators of torch (on all devices), numpy and Python while inside, and restores their states.

    Without a card the CPU's generator is all there is: torch.manual_seed would note, with the stack as text, that three
    kinds of devices are to be seeded should they turn up, which takes milliseconds of every call.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    cards = torch.cuda.is_available()
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count())) if cards else []):
        if cards:
            torch.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


class OwnNumbers:
    """Random numbers of one side's own, which go on from use to use and leave those of all others unchanged.

    They begin from another seed than torch was last given, but one that follows from it, and anew wherever torch has
    been given another one.
    """

    def __init__(self) -> None:
        self._seed: int | None = None
        self._states: tuple[Any, ...] = ()

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draws from these numbers while inside: the generators of torch (on all devices), numpy and Python."""
        devices = _devices()
        outer, seed = _states(devices), torch.initial_seed()
        if seed != self._seed:
            self._seed = seed
            with seeded(_number(f"{seed}/own")):
                self._states = _states(devices)
        _restore(self._states, devices)
        try:
            yield
        finally:
            self._states = _states(devices)
            _restore(outer, devices)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _devices() -> range:
    return range(torch.cuda.device_count() if torch.cuda.is_available() else 0)


def _states(devices: range) -> tuple[Any, ...]:
    cards = [torch.cuda.get_rng_state(device) for device in devices]
    return torch.get_rng_state(), cards, np.random.get_state(), random.getstate()


def _restore(states: tuple[Any, ...], devices: range) -> None:
    torch.set_rng_state(states[0])
    for device, state in zip(devices, states[1], strict=False):
        torch.cuda.set_rng_state(state, device)
    np.random.set_state(states[2])
    random.setstate(states[3])
