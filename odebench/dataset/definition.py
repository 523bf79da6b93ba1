"""What is known of a data set before it is loaded. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DatasetDefinition:
    """A data set by name: the shape (channels, height, width) of its images, its classes and its default epsilons.

    `epsilons` maps a norm ("linf" or "l2") to rising radii in units of the image range [0, 1]; for a norm that is not
    in it the user has to name them. `loader` is "module:attribute" of a function (definition, data_dir, progress) ->
    Dataset, whose `data_dir` need not exist. `sizes` maps "train", "validation" and "test" to the number of images,
    where that is known beforehand. `summary` is the line that `odebench datasets` prints of a built-in one. `files` are
    groups of paths below the data folder, or absolute: where all of one group exist, nothing is downloaded.
    """

    name: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    epsilons: Mapping[str, tuple[float, ...]]
    loader: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    summary: str = ""
    files: tuple[tuple[str, ...], ...] = ()

    def on_disk(self, folder: Path) -> bool | None:
        """Whether its files are in the data folder, or installed; null where the definition names none."""
        if not self.files:
            return None
        return any(all((folder / file).exists() for file in group) for group in self.files)
