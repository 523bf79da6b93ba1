"""Random numbers within `seeded`: those of the seed, and the caller's generators come back as they were."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from odebench.numerics.seeding import seeded


def drawn() -> list[Any]:
    """Numbers of all three generators; an odd number of normals, so that numpy keeps the second of a pair."""
    return [random.random(), torch.rand(2).tolist(), np.random.normal(size=3).tolist(), np.random.rand(2).tolist()]


def test_the_numbers_are_those_of_the_seed_at_every_depth() -> None:
    random.seed(4)
    torch.manual_seed(4)
    np.random.seed(4)
    plain = drawn()
    for _ in range(2):
        with seeded(4):
            assert drawn() == plain
        with seeded(5), seeded(4):
            assert drawn() == plain


def test_the_callers_generators_come_back_whole() -> None:
    random.seed(1)
    torch.manual_seed(1)
    np.random.seed(1)
    plain = [drawn() for _ in range(3)]
    random.seed(1)
    torch.manual_seed(1)
    np.random.seed(1)
    found = [drawn()]
    with seeded(2):
        drawn()
        with seeded(3):
            drawn()
    found.append(drawn())
    with pytest.raises(KeyError), seeded(2):
        raise KeyError
    found.append(drawn())
    assert found == plain


def test_what_lies_within_moves_nothing_outside() -> None:
    def outer(inside: bool) -> list[float]:
        with seeded(6):
            first = np.random.normal()  # the second of its pair is kept for the next
            if inside:
                with seeded(7):
                    drawn()
            return [first, np.random.normal(), random.random(), float(torch.rand(()))]

    assert outer(True) == outer(False)


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.SFC64, np.random.Philox, np.random.PCG64])
@pytest.mark.parametrize("swapped", [False, True])
def test_any_generator_of_numpys_comes_back(kind: Any, swapped: bool) -> None:
    usual = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(kind(3))
        np.random.normal()  # the second of its pair is kept
        before = np.random.get_bit_generator(), str(np.random.get_state(legacy=False))
        for _ in range(50):
            with seeded(1):
                if swapped:
                    np.random.set_bit_generator(np.random.Philox(4))
                np.random.normal(size=3)
        assert (np.random.get_bit_generator(), str(np.random.get_state(legacy=False))) == before
    finally:
        np.random.set_bit_generator(usual)
