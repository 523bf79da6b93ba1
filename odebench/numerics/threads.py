"""How many threads compute, where nobody says so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod

SMALL = 28 * 28
"""The number of values of an image up to which more threads wait for each other longer than they compute."""


def one_thread_if_small(image_shape: Sequence[int]) -> None:
    """Makes torch compute on one thread for images of at most 28 x 28 values: the published weights and results were
    found so, and threads change the last digits. OMP_NUM_THREADS, where set, decides instead."""
    if prod(image_shape) <= SMALL and "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(1)
