"""What is known of a data set before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DatasetDefinition:
    """A data set's name, the shape (channels, height, width) of its images, its classes and default radii.

    `epsilons` maps a norm ("linf" or "l2") to rising radii in units of the image range [0, 1]; without an
    entry for a norm the user has to name the radii. `loader` is "module:attribute" of a function
    (definition, data_dir, progress) -> Dataset; `data_dir` is the data folder, which need not exist. `sizes` are
    the numbers of images of its splits ("train", "validation", "test"), where they are known beforehand.
    """

    name: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    epsilons: Mapping[str, tuple[float, ...]]
    loader: str
    sizes: Mapping[str, int] = field(default_factory=dict)
