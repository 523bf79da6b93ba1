"""Seeding of the random generators: each attack call gets its own random numbers and leaves the generators unchanged.

Attacks draw random numbers on the CPU and move them: a GPU's generator gives others for the same seed.
"""

from __future__ import annotations

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
    text = f"{attack_seed}/{chunk}/{stage}/{epsilon!r}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


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
