"""Seeding of the random generators: each attack call gets its own random numbers and leaves the generators unchanged.

Attacks draw random numbers on the CPU and move them: a GPU's generator gives others for the same seed.
"""

from __future__ import annotations

import ctypes
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

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
    python_state, numpy_state = random.getstate(), _NumpyState()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed) if devices else torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            numpy_state.restore()


_MT19937_BYTES = 4 * 624 + 4
"""The state of numpy's Mersenne twister in memory: 624 words and the place of the next."""


class _NumpyState:
    """The state of numpy's global generator, copied as bytes: numpy's get_state and set_state take 50 times as long.

    Of a pair of normals numpy hands over one and keeps the other. Drawing one more tells whether there is such a one:
    then the twister does not move.
    """

    def __init__(self) -> None:
        self.generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
        self.whole = None
        if type(self.generator) is not np.random.MT19937:  # set by np.random.set_bit_generator
            self.whole = np.random.get_state(legacy=False)
            return
        self.words = self._words()
        drawn = np.random.standard_normal()
        self.kept = drawn if self._words() == self.words else None

    def _words(self) -> bytes:
        return ctypes.string_at(self.generator.ctypes.state_address, _MT19937_BYTES)

    def restore(self) -> None:
        if np.random.get_bit_generator() is not self.generator:  # type: ignore[attr-defined]
            np.random.set_bit_generator(self.generator)  # type: ignore[attr-defined]
        if self.whole is not None:
            np.random.set_state(self.whole)
            return
        np.random.seed(0)  # forgets the normal that is kept now
        ctypes.memmove(self.generator.ctypes.state_address, self.words, _MT19937_BYTES)
        if self.kept is not None:
            np.random.set_state(np.random.get_state(legacy=False) | {"has_gauss": 1, "gauss": self.kept})


class OwnNumbers:
    """Random numbers of one side's own: others at each use, which leave the generators unchanged.

    They follow from the seed that torch was last given, and begin anew wherever that is another one.
    """

    def __init__(self) -> None:
        self._seed: int | None = None
        self._seeds = random.Random()

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Seeds the generators of torch (on all devices), numpy and Python while inside, from the next of these."""
        seed = torch.initial_seed()
        if seed != self._seed:
            self._seed, self._seeds = seed, random.Random(_number(f"{seed}/own"))
        with seeded(self._seeds.getrandbits(32)):
            yield


def state_seed() -> int:
    """A seed that follows from the state of torch's generator, which it leaves as it is."""
    return int.from_bytes(hashlib.sha256(torch.get_rng_state().numpy().tobytes()).digest()[:4], "big")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
