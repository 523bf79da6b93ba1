"""Image folders: train/<class>/ and test/<class>/ with JPEG or PNG files, as a folder or a tar archive, decoded
once."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from odebench.dataset.archive import Member, read_archive, read_folder, walk_folder
from odebench.dataset.base import MIN_SIDE, Dataset, Split
from odebench.dataset.data_folder import image_folders
from odebench.dataset.decoded import Decoded, read_cache, write_cache
from odebench.dataset.definition import DatasetDefinition
from odebench.errors import DatasetError
from odebench.io.canonical_json import digest
from odebench.io.files import FileError, sha256_file
from odebench.io.folders import cache_folder
from odebench.progress import Progress

_PARTS = ("train", "test")
_GREY_MODES = ("1", "L", "LA")
_COLOUR_MODES = ("RGB", "RGBA", "P", "CMYK")
_LAYOUT = "expected train/<class>/ and test/<class>/ with .jpg, .jpeg or .png files"


@dataclass(frozen=True)
class _Picture:
    """A decoded image: its part, its class, its path, and pixels (height, width) or (height, width, 3)."""

    part: str
    label: str
    path: PurePosixPath
    pixels: NDArray[np.uint8]


def load_image_folder(definition: DatasetDefinition, data_dir: Path, progress: Progress) -> Dataset:
    """The data set in the data folder that an image folder's definition, from describe_dataset, speaks of. Raises
    DatasetError where there is none, or one with other classes or another shape."""
    found = image_folders(data_dir)
    if definition.name not in found:
        raise DatasetError(
            f"data set {definition.name!r}: no image folder or archive of that name in {data_dir}; put a folder "
            f"{definition.name} with train/<class>/ and test/<class>/ there, or {definition.name}.tar.xz"
        )
    dataset = read_image_folder(found[definition.name], name=definition.name, progress=progress)
    if (dataset.classes, dataset.image_shape) != (definition.classes, definition.image_shape):
        raise DatasetError(
            f"{found[definition.name]} is not {definition.name}, which has images of shape "
            f"{list(definition.image_shape)} in the classes {', '.join(definition.classes)}; give yours another name"
        )
    return dataset


def read_image_folder(path: Path, *, name: str, progress: Progress) -> Dataset:
    """The data set in the image folder or tar archive at `path`, decoded now or read from the cache.

    Classes are sorted. If all images are grey they have one channel, else all have three. Raises DatasetError, and
    writes nothing, where the folder or an image in it cannot be used.
    """
    cache = cache_folder() / "datasets" / f"{_fingerprint(path)}.safetensors"
    kept = read_cache(cache)
    decoded = kept or _decode(path, (read_folder if path.is_dir() else read_archive)(path, progress=progress))
    train = Split(decoded.train_pixels, decoded.train_labels)
    test = Split(decoded.test_pixels, decoded.test_labels)
    dataset = Dataset.from_pools(name, decoded.classes, train=train, test=test)
    if kept is None:
        try:
            write_cache(cache, decoded)
        except FileError as error:
            progress.say(f"the decoded images of {name} are not kept: {error}")
    return dataset


def _fingerprint(path: Path) -> str:
    """What the decoded images depend on: an archive's bytes, or each file's path, size and time of change."""
    try:
        if path.is_file():
            return sha256_file(path)
        files = [(file.relative_to(path).as_posix(), file.stat()) for file in walk_folder(path) if file.is_file()]
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    return digest([[relative, found.st_size, found.st_mtime_ns] for relative, found in files])


def _decode(source: Path, members: Iterable[Member]) -> Decoded:
    pictures: dict[PurePosixPath, _Picture] = {}  # of two members with one path the later counts, as in tar
    roots: set[PurePosixPath] = set()
    labels: set[str] = set()
    with warnings.catch_warnings():
        # what PIL says of odd metadata is not our user's concern, but a decompression bomb is
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for member in members:
            placed = _place(source, member)
            if placed is None:
                continue
            root, part, label = placed
            roots.add(root)
            labels.add(label)
            if member.data is not None:
                first = next(iter(pictures.values()), None)
                pixels = _pixels(f"{source}: {member.path}", member.data, first)
                pictures[member.path] = _Picture(part, label, member.path, pixels)
    if len(roots) > 1:
        raise DatasetError(f"{source}: train/ and test/ in several places ({', '.join(sorted(map(str, roots)))})")
    ordered = [pictures[path] for path in sorted(pictures)]
    classes = _classes(source, labels, ordered)
    colour = any(picture.pixels.ndim == 3 for picture in ordered)
    index = {label: number for number, label in enumerate(classes)}
    tensors = {}
    for part in _PARTS:
        chosen = [picture for picture in ordered if picture.part == part]
        tensors[f"{part}_pixels"] = _stack([picture.pixels for picture in chosen], colour=colour)
        tensors[f"{part}_labels"] = torch.tensor([index[picture.label] for picture in chosen])
    return Decoded(classes, **tensors)


def _place(source: Path, member: Member) -> tuple[PurePosixPath, str, str] | None:
    """The folder that holds train/ and test/, the part and the class; None for what is in no class folder."""
    parts = member.path.parts
    for depth in (0, 1):
        if len(parts) > depth + 1 and parts[depth] in _PARTS:
            if member.data is None and len(parts) != depth + 2:
                return None
            if member.data is not None and len(parts) != depth + 3:
                raise DatasetError(f"{source}: {member.path} is not right in a class folder; {_LAYOUT}")
            return PurePosixPath(*parts[:depth]), parts[depth], parts[depth + 1]
    return None


def _classes(source: Path, labels: set[str], pictures: list[_Picture]) -> tuple[str, ...]:
    for part in _PARTS:
        filled = {picture.label for picture in pictures if picture.part == part}
        if not filled:
            raise DatasetError(f"{source} has no images in {part}/; {_LAYOUT}")
        empty = sorted(labels - filled)
        if empty:
            raise DatasetError(f"{source}: class {empty[0]!r} has no images in {part}/; add some or remove the class")
    return tuple(sorted(labels))


def _pixels(where: str, data: bytes, first: _Picture | None) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            width, height = image.size
            _check_size(where, height, width, first)
            if image.mode not in _GREY_MODES + _COLOUR_MODES:
                raise DatasetError(f"{where} has pixels of mode {image.mode!r}; expected 8-bit grey or RGB")
            return np.asarray(image.convert("L" if image.mode in _GREY_MODES else "RGB"))
    except DatasetError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DatasetError(f"{where} is far too big, perhaps a decompression bomb: {error}") from error
    except Exception as error:  # a decoder fails on a damaged file in any way it likes
        reason = "no JPEG or PNG file" if isinstance(error, UnidentifiedImageError) else error
        raise DatasetError(f"{where} is damaged or not an image: {reason}; replace or remove it") from error


def _check_size(where: str, height: int, width: int, first: _Picture | None) -> None:
    if min(height, width) < MIN_SIDE:
        raise DatasetError(f"{where} is {height}x{width}; expected at least {MIN_SIDE}x{MIN_SIDE}")
    if first is not None and first.pixels.shape[:2] != (height, width):
        other = "x".join(str(side) for side in first.pixels.shape[:2])
        raise DatasetError(
            f"{where} is {height}x{width} but {first.path} is {other} (height x width); resize all images to one size"
        )


def _stack(pixels: list[NDArray[np.uint8]], *, colour: bool) -> torch.Tensor:
    """Images as (n, channels, height, width); among colour images grey ones get three equal channels."""
    height, width = pixels[0].shape[:2]
    stacked = np.empty((len(pixels), 3 if colour else 1, height, width), dtype=np.uint8)
    for target, image in zip(stacked, pixels, strict=True):
        target[:] = image.transpose(2, 0, 1) if image.ndim == 3 else image
    return torch.from_numpy(stacked)
