"""The 1,797 handwritten digits that come with scikit-learn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy
import torch

from odebench.dataset.base import Dataset, Split
from odebench.dataset.definition import DatasetDefinition
from odebench.dataset.order import stratified_order
from odebench.progress import Progress

N_TEST = 500
N_VALIDATION = 200


def load_digits(definition: DatasetDefinition, data_dir: Path, progress: Progress) -> Dataset:
    """500 test, 200 validation and 1,097 train images, cut from one stratified order. `data_dir` is not read."""
    table = torch.from_numpy(_table())
    images = table[:, :-1].to(torch.float32).reshape(-1, *definition.image_shape) / 16
    labels = table[:, -1].to(torch.int64)
    whole, order = Split(images, labels), stratified_order(labels)
    parts = (order[:N_TEST], order[N_TEST:][:N_VALIDATION], order[N_TEST + N_VALIDATION :])
    test, validation, train = map(whole.part, parts)
    return Dataset(definition.name, definition.classes, train, validation, test)


def _table() -> numpy.ndarray:
    """The pixels and, last, the label of each image, as in scikit-learn's file.

    To import scikit-learn takes two seconds, of which the table needs nothing; it is asked where the file is another.
    """
    package = find_spec("sklearn")
    if package is not None and package.origin is not None:
        file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return numpy.loadtxt(file, delimiter=",")
    import sklearn.datasets

    return numpy.column_stack(sklearn.datasets.load_digits(return_X_y=True))
