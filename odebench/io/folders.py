"""The folders where odebench keeps things: the cache folder, and a published leaderboard."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs


@dataclass(frozen=True)
class PublishedFolder:
    """A published leaderboard, such as ./leaderboard: its results, the weights that they rest on, and its entries."""

    path: Path

    @property
    def results(self) -> Path:
        """The folder of the results, with one folder per model."""
        return self.path / "results"

    @property
    def study(self) -> Path:
        """The folder of results without weights, one folder per model: they enter claims, and no table."""
        return self.path / "study"

    def results_of(self, *, weights: bool) -> Path:
        """The folder of results with, or without, weights."""
        return self.results if weights else self.study

    @property
    def weights(self) -> Path:
        """The folder of the weights, each file named by the digest of its recipe or by its own sha256."""
        return self.path / "weights"

    @property
    def entries(self) -> Path:
        """The folder of the entries, with one folder per entry."""
        return self.path / "entries"

    @staticmethod
    def around(entry: Path) -> PublishedFolder:
        """The leaderboard that an entry's folder lies in: two folders up."""
        return PublishedFolder(entry.parent.parent)


LEADERBOARD = PublishedFolder(Path("leaderboard"))
"""The leaderboard in the working folder; also where it lies below the root of the repository."""


def cache_folder() -> Path:
    """The folder for weights and decoded data: ODEBENCH_CACHE, else the user's cache folder."""
    given = os.environ.get("ODEBENCH_CACHE")
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("odebench"))


def published_folders() -> list[PublishedFolder]:
    """The leaderboards to look in, whether they exist or not: that of ODEBENCH_LEADERBOARD alone where it is set (none
    where it is empty), else ./leaderboard, then that of the checkout that odebench runs from."""
    given = os.environ.get("ODEBENCH_LEADERBOARD")
    if given is None:
        return [LEADERBOARD, PublishedFolder(Path(__file__).parents[2] / LEADERBOARD.path)]
    return [PublishedFolder(Path(given).expanduser())] if given else []


def published_folder() -> PublishedFolder | None:
    """The first of `published_folders` that has results; None where none has."""
    return next((folder for folder in published_folders() if folder.results.is_dir()), None)


def weights_folders(cache: Path, published: PublishedFolder | None) -> list[Path]:
    """The folders where weights are looked for, in this order: published ones first, so that a run repeats what is
    published although the same recipe was trained here; what is trained goes to the last."""
    return [*([] if published is None else [published.weights]), cache / "weights"]
