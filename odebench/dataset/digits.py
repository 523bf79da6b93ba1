"""The 1,797 handwritten digits that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import sklearn.datasets
import torch

from odebench.dataset.base import Dataset, Split
from odebench.dataset.definition import DatasetDefinition
from odebench.dataset.order import stratified_order
from odebench.progress import Progress

N_TEST = 500
N_VALIDATION = 200


def load_digits(definition: DatasetDefinition, data_dir: Path, progress: Progress) -> Dataset:
    """500 test, 200 validation and 1,097 train images, cut from one stratified order. `data_dir` is not read."""
    values, targets = sklearn.datasets.load_digits(return_X_y=True)
    images = torch.from_numpy(values).to(torch.float32).reshape(-1, *definition.image_shape) / 16
    labels = torch.from_numpy(targets).to(torch.int64)
    whole, order = Split(images, labels), stratified_order(labels)
    parts = (order[:N_TEST], order[N_TEST:][:N_VALIDATION], order[N_TEST + N_VALIDATION :])
    test, validation, train = map(whole.part, parts)
    return Dataset(definition.name, definition.classes, train, validation, test)
