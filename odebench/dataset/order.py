"""The fixed order of a split: the first n images are as balanced over the classes as possible, for every n."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor


def stratified_order(labels: Int[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """A permutation of 0..n-1 in which the classes take turns: class 0, 1, 2, ..., 0, 1, 2, ...

    Within a class the images are shuffled with seed 0; a class that has run out is skipped. The permutation depends on
    the labels alone, because numpy keeps the stream of RandomState the same in all versions.
    """
    values = labels.detach().cpu().numpy()
    shuffled = np.random.RandomState(0).permutation(len(values))
    by_class = shuffled[np.argsort(values[shuffled], kind="stable")]
    _, starts, counts = np.unique(values[by_class], return_index=True, return_counts=True)
    turn = np.arange(len(values)) - np.repeat(starts, counts)
    return torch.from_numpy(by_class[np.lexsort((values[by_class], turn))].astype(np.int64))
