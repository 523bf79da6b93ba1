"""The folder for data, and the image folders and archives that lie in it."""

from __future__ import annotations

import os
from pathlib import Path

from odebench.errors import DatasetError
from odebench.io.folders import cache_folder

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tar.xz")


def data_folder(data_dir: Path | None = None) -> Path:
    """`data_dir`, else ODEBENCH_DATA, else "data" in the cache folder. Raises DatasetError where a named one is
    missing."""
    given = data_dir if data_dir is not None else os.environ.get("ODEBENCH_DATA")
    if not given:
        return cache_folder() / "data"
    folder = Path(given).expanduser()
    if not folder.is_dir():
        source = "--data-dir" if data_dir is not None else "ODEBENCH_DATA"
        said = "is no folder; name" if folder.exists() else "does not exist; create it or name"
        raise DatasetError(f"the data folder {folder} ({source}) {said} another")
    return folder


def image_folders(folder: Path) -> dict[str, Path]:
    """The folders, else the tar archives, in the data folder, by name without suffix."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            found[path.name] = path
        for suffix in ARCHIVE_SUFFIXES:
            if path.name.endswith(suffix) and path.is_file():
                found.setdefault(path.name.removesuffix(suffix), path)
    return found
