"""Images in [0, 1] with their labels, in one fixed order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64, Shaped
from torch import Tensor

from odebench.dataset.order import stratified_order
from odebench.errors import DatasetError

MIN_SIDE = 8
MAX_VALIDATION = 5000
_HASH_CHUNK = 4096


class Split:
    """Images and labels in a fixed order. `pixels` are float32 in [0, 1], or uint8, which `images` divides by 255."""

    def __init__(self, pixels: Shaped[Tensor, "n channels height width"], labels: Int64[Tensor, " n"]) -> None:
        self.pixels = pixels
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images of {tuple(self.pixels.shape[1:])})"

    def part(self, rows: slice | Int64[Tensor, " m"]) -> Split:
        """Some of the images with their labels, in the order of `rows`."""
        return Split(self.pixels[rows], self.labels[rows])

    @cached_property
    def images(self) -> Float32[Tensor, "n channels height width"]:
        """All images, float32 in [0, 1]."""
        return _as_float(self.pixels)

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the whole ordered split: int64 shape, float32 images, int64 labels, little-endian."""
        found = hashlib.sha256(np.array(self.pixels.shape, dtype="<i8").tobytes())
        for start in range(0, len(self), _HASH_CHUNK):
            found.update(_as_float(self.pixels[start : start + _HASH_CHUNK]).numpy().astype("<f4").tobytes())
        found.update(self.labels.numpy().astype("<i8").tobytes())
        return found.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named classification task; all images have one shape. Raises DatasetError where images or labels are
    unusable."""

    name: str
    classes: tuple[str, ...]
    train: Split | None
    validation: Split | None
    test: Split

    def __post_init__(self) -> None:
        for title, split in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if split is None:
                continue
            _check_split(f"data set {self.name!r}, {title}", split, n_classes=self.n_classes)
            if split.pixels.shape[1:] != self.image_shape:
                raise DatasetError(
                    f"data set {self.name!r}: {title} images are {_size(split.pixels.shape[1:])}, "
                    f"test images {_size(self.image_shape)}; all must have one shape"
                )
        if self.train is not None:
            counts = torch.bincount(self.train.labels, minlength=self.n_classes).tolist()
            if 0 in counts:
                raise DatasetError(
                    f"data set {self.name!r}: class {self.classes[counts.index(0)]!r} has no image left "
                    "to train on: a tenth of the train images, balanced over the classes, is for validation; "
                    "add images or remove the class"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.test.pixels.shape[1:]
        return channels, height, width

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @staticmethod
    def from_tensors(
        name: str,
        images: Float[Tensor, "n channels height width"],
        labels: Int[Tensor, " n"],
        classes: Sequence[str] | None = None,
    ) -> Dataset:
        """A data set of your own test images, in [0, 1], without train images.

        They are brought into stratified order: image i of the test split is your image stratified_order(labels)[i].
        `classes` are by default named "0", "1" and so on. Raises DatasetError where images or labels are not usable.
        """
        where = f"data set {name!r}"
        if images.dtype == torch.uint8:
            raise DatasetError(
                f"{where}: images are uint8, expected floats in [0, 1]; divide by 255: images.float() / 255"
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise DatasetError(f"{where}: labels are {_dtype(labels)}, expected integers from 0; use labels.long()")
        split = Split(images.detach().cpu().to(torch.float32), labels.detach().cpu().to(torch.int64))
        names = tuple(classes) if classes is not None else _numbered(split.labels)
        _check_split(where, split, n_classes=len(names))
        return Dataset(name, names, None, None, split.part(stratified_order(split.labels)))

    @staticmethod
    def from_pools(name: str, classes: tuple[str, ...], *, train: Split, test: Split) -> Dataset:
        """A data set from train and test images in any order, which are stratified. The first tenth of the train
        images, at most 5,000, becomes the validation split. Raises DatasetError where images or labels are unusable."""
        for title, split in (("train", train), ("test", test)):
            _check_split(f"data set {name!r}, {title}", split, n_classes=len(classes))
        n_validation = min(MAX_VALIDATION, len(train) // 10)
        order = stratified_order(train.labels)
        validation = train.part(order[:n_validation]) if n_validation else None
        rest = train.part(order[n_validation:])
        return Dataset(name, classes, rest, validation, test.part(stratified_order(test.labels)))


def _as_float(pixels: Tensor) -> Tensor:
    return pixels.to(torch.float32) / 255 if pixels.dtype == torch.uint8 else pixels


def _numbered(labels: Tensor) -> tuple[str, ...]:
    return tuple(str(label) for label in range(max(0, int(labels.max())) + 1)) if labels.numel() else ()


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(side) for side in shape)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _check_split(where: str, split: Split, *, n_classes: int) -> None:
    """Raises DatasetError, with a message that begins with `where`, unless images and labels can be used."""
    _check_images(where, split.pixels)
    labels = split.labels
    if labels.dtype != torch.int64:
        raise DatasetError(f"{where}: labels are {_dtype(labels)}, expected int64; use labels.long()")
    if labels.shape != split.pixels.shape[:1]:
        raise DatasetError(
            f"{where}: labels have shape {tuple(labels.shape)}, expected ({len(split.pixels)},): one for each image"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        raise DatasetError(
            f"{where}: labels lie in [{low}, {high}], expected [0, {n_classes - 1}] for {n_classes} classes; "
            "number the classes from 0"
        )


def _check_images(where: str, pixels: Tensor) -> None:
    if pixels.ndim != 4:
        raise DatasetError(
            f"{where}: images have shape {tuple(pixels.shape)}, expected four dimensions (n, channels, height, width)"
        )
    n, channels, height, width = pixels.shape
    if channels not in (1, 3):
        hint = "; move the channels forward: images.permute(0, 3, 1, 2)" if width in (1, 3) else ""
        raise DatasetError(f"{where}: images have {channels} channels, expected 1 (grey) or 3 (colour){hint}")
    if min(height, width) < MIN_SIDE:
        raise DatasetError(f"{where}: images are {height}x{width}, expected at least {MIN_SIDE}x{MIN_SIDE}")
    if n == 0:
        raise DatasetError(f"{where}: there are no images, expected at least one")
    if pixels.dtype == torch.uint8:
        return
    if pixels.dtype != torch.float32:
        raise DatasetError(f"{where}: images are {_dtype(pixels)}, expected float32 in [0, 1]; use images.float()")
    low, high = float(pixels.min()), float(pixels.max())
    bad = pixels.numel() - int(torch.isfinite(pixels).sum())
    if bad:
        raise DatasetError(f"{where}: {bad:,} pixels are NaN or infinite, expected finite numbers in [0, 1]")
    if low < 0 or high > 1:
        hint = "divide by 255" if low >= 0 and 1 < high <= 255 else "undo the normalisation: it belongs in the model"
        raise DatasetError(f"{where}: pixels lie in [{low:g}, {high:g}], expected [0, 1]; {hint}")
