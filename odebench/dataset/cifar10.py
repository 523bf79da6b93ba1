"""CIFAR-10 from torchvision's reader, its files checked by the published md5."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets

from odebench.dataset.base import Dataset, Split
from odebench.dataset.definition import DatasetDefinition
from odebench.dataset.download import damaged, fetch_missing, file_md5, quiet
from odebench.errors import DatasetError
from odebench.progress import Progress


def load_cifar10(definition: DatasetDefinition, data_dir: Path, progress: Progress) -> Dataset:
    """CIFAR-10 from the data folder (cifar-10-batches-py, or cifar-10-python.tar.gz) or a download."""
    source: Any = torchvision.datasets.CIFAR10
    meta = (source.meta["filename"], source.meta["md5"])
    batches = [
        (data_dir / source.base_folder / file, md5) for file, md5 in [*source.train_list, *source.test_list, meta]
    ]
    for path, md5 in batches:
        if path.is_file() and file_md5(path) != md5:
            raise damaged(definition.name, path, "its checksum is not the published one")
    if not all(path.is_file() for path, _ in batches):
        archive = data_dir / source.filename
        fetch_missing([source.url], archive, md5=source.tgz_md5, name=definition.name, progress=progress)
    try:
        with quiet():
            train, test = (source(data_dir, train=train, download=True) for train in (True, False))
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise DatasetError(f"data set {definition.name!r} cannot be read from {data_dir}: {error}") from error
    return Dataset.from_pools(
        definition.name,
        definition.classes,
        train=_split(train.data, train.targets),
        test=_split(test.data, test.targets),
    )


def _split(pixels: Any, targets: list[int]) -> Split:
    return Split(torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))), torch.tensor(targets))
