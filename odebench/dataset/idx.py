"""MNIST and Fashion-MNIST from idx files, plain or gzip, in the format specified by Yann LeCun."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from odebench.dataset import builtin
from odebench.dataset.base import Dataset, Split
from odebench.dataset.definition import DatasetDefinition
from odebench.dataset.download import damaged, fetch_missing
from odebench.progress import Progress

DEBIAN_FASHION_MNIST = Path(builtin.DEBIAN_FASHION_MNIST)
_UNSIGNED_BYTE = 8


def load_fashion_mnist(definition: DatasetDefinition, data_dir: Path, progress: Progress) -> Dataset:
    """Fashion-MNIST from Debian's package dataset-fashion-mnist, else from the data folder or a download."""
    if all((DEBIAN_FASHION_MNIST / f"{stem}.gz").is_file() for stem in builtin.IDX_STEMS):
        files = {stem: DEBIAN_FASHION_MNIST / f"{stem}.gz" for stem in builtin.IDX_STEMS}
    else:
        files = _find_or_fetch(definition, "FashionMNIST", data_dir, progress)
    return _read(definition, files)


def load_mnist(definition: DatasetDefinition, data_dir: Path, progress: Progress) -> Dataset:
    """MNIST from the data folder (MNIST/raw, torchvision's layout) or a download."""
    return _read(definition, _find_or_fetch(definition, "MNIST", data_dir, progress))


def _find_or_fetch(
    definition: DatasetDefinition, torchvision_name: str, data_dir: Path, progress: Progress
) -> dict[str, Path]:
    raw = data_dir / torchvision_name / "raw"
    files = {stem: raw / stem for stem in builtin.IDX_STEMS}
    if all(path.is_file() for path in files.values()):
        return files
    # torchvision takes seconds to import, and is not needed where the plain files exist.
    import torchvision.datasets

    source: Any = getattr(torchvision.datasets, torchvision_name)
    for file, md5 in source.resources:
        stem, path = file.removesuffix(".gz"), raw / file
        if files[stem].is_file():
            continue
        urls = [mirror + file for mirror in source.mirrors]
        fetch_missing(urls, path, md5=md5, name=definition.name, progress=progress)
        files[stem] = path
    return files


def _read(definition: DatasetDefinition, files: dict[str, Path]) -> Dataset:
    pools = []
    for part in ("train", "t10k"):
        images = _read_idx(files[f"{part}-images-idx3-ubyte"], ndim=3, name=definition.name)
        labels = _read_idx(files[f"{part}-labels-idx1-ubyte"], ndim=1, name=definition.name)
        pools.append(Split(images.unsqueeze(1), labels.to(torch.int64)))
    return Dataset.from_pools(definition.name, definition.classes, train=pools[0], test=pools[1])


def _read_idx(path: Path, *, ndim: int, name: str) -> torch.Tensor:
    """The uint8 tensor in an idx file. Raises DatasetError where it is cut short or not such a file."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise damaged(name, path, str(error)) from error
    header = 4 * (1 + ndim)
    if len(data) < header or data[:4] != bytes([0, 0, _UNSIGNED_BYTE, ndim]):
        raise damaged(name, path, f"it is not an idx file of bytes in {ndim} dimensions")
    shape = [int.from_bytes(data[start : start + 4], "big") for start in range(4, header, 4)]
    if len(data) - header != math.prod(shape):
        raise damaged(name, path, f"{len(data) - header} bytes of data where {math.prod(shape)} are due")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=header).copy()).reshape(shape)
