"""Data sets by name: registered ones, and image folders or archives in the data folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from odebench.dataset.data_folder import data_folder, image_folders
from odebench.dataset.definition import DatasetDefinition
from odebench.dataset.registry import DATASETS
from odebench.errors import DatasetError, unknown_name
from odebench.progress import SILENT, Progress
from odebench.registry import load_target

if TYPE_CHECKING:
    from odebench.dataset.base import Dataset

IMAGE_FOLDER_LOADER = "odebench.dataset.folder:load_image_folder"


def load_dataset(name: str, *, data_dir: Path | None = None, progress: Progress = SILENT) -> Dataset:
    """The data set `name`: a registered one, else the image folder or archive of that name in the data folder.

    The data folder is `data_dir`, else ODEBENCH_DATA, else "data" in the cache folder. Raises UsageError for an
    unknown name, and DatasetError where the data are damaged, or are missing and cannot be downloaded.
    """
    folder = data_folder(data_dir)
    registered = _registered(name)
    if registered is None:
        return _load_image_folder(name, folder, progress)
    try:
        loader = load_target(registered.loader)
    except (ImportError, AttributeError, ValueError) as error:
        raise DatasetError(f"data set {name!r}: its loader {registered.loader} cannot be loaded: {error}") from error
    dataset = cast("Dataset", loader(registered, folder, progress))
    promised = (registered.name, registered.classes, registered.image_shape)
    found = (dataset.name, dataset.classes, dataset.image_shape)
    if found != promised:
        raise DatasetError(f"data set {name!r}: its loader gave {found}, its definition says {promised}")
    return dataset


def describe_dataset(name: str, *, data_dir: Path | None = None, progress: Progress = SILENT) -> DatasetDefinition:
    """The definition of the data set `name`; that of an image folder is made by decoding it, or cached. Raises
    UsageError for an unknown name, and DatasetError for an image folder that cannot be used."""
    folder = data_folder(data_dir)
    registered = _registered(name)
    if registered is not None:
        return registered
    dataset = _load_image_folder(name, folder, progress)
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    sizes = {split: len(images) for split, images in splits.items() if images is not None}
    return DatasetDefinition(name, dataset.image_shape, dataset.classes, {}, IMAGE_FOLDER_LOADER, sizes)


def _registered(name: str) -> DatasetDefinition | None:
    if name not in DATASETS.entries():
        return None
    definition = DATASETS.load(name)
    if not isinstance(definition, DatasetDefinition):
        raise DatasetError(f"data set {name!r}: its entry point names no DatasetDefinition; see the plugin's author")
    return definition


def _load_image_folder(name: str, folder: Path, progress: Progress) -> Dataset:
    found = image_folders(folder)
    if name not in found:
        usable = {stem for stem, path in found.items() if path.is_file() or _has_splits(path)}
        raise unknown_name("data set", name, usable.union(DATASETS.entries()))
    # Imported here, so that a registered data set is described without torch.
    from odebench.dataset.folder import read_image_folder

    return read_image_folder(found[name], name=name, progress=progress)


def _has_splits(folder: Path) -> bool:
    return any((top / "train").is_dir() for top in (folder, *(path for path in folder.iterdir() if path.is_dir())))
