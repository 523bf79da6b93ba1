"""SVHN (cropped digits) from torchvision's reader, its files checked by the published md5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets

from odebench.dataset.base import Dataset, Split
from odebench.dataset.definition import DatasetDefinition
from odebench.dataset.download import fetch_missing, quiet
from odebench.progress import Progress


def load_svhn(definition: DatasetDefinition, data_dir: Path, progress: Progress) -> Dataset:
    """SVHN from train_32x32.mat and test_32x32.mat in the data folder or a download."""
    train, test = (_read(part, definition, data_dir, progress) for part in ("train", "test"))
    return Dataset.from_pools(definition.name, definition.classes, train=train, test=test)


def _read(part: str, definition: DatasetDefinition, data_dir: Path, progress: Progress) -> Split:
    source: Any = torchvision.datasets.SVHN
    url, file, md5 = source.split_list[part]
    path = data_dir / file
    fetch_missing([url], path, md5=md5, name=definition.name, progress=progress)
    with quiet():
        found = source(data_dir, split=part)
    return Split(torch.from_numpy(np.ascontiguousarray(found.data)), torch.from_numpy(found.labels))
