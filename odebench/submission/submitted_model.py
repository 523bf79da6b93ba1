"""Entries as models that can be evaluated, in one name space with the registered models. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from odebench.dataset.definition import DatasetDefinition
from odebench.errors import OdebenchError, UsageError, WeightError, unknown_name
from odebench.evaluation import model_reference
from odebench.evaluation.model_reference import ModelReference, RegisteredModel, ResolvedModel
from odebench.io.folders import LEADERBOARD, PublishedFolder, published_folders
from odebench.io.remote_weights import Address
from odebench.io.text import printable
from odebench.model.definition import Contributed, Origin, load_definition
from odebench.model.registry import MODELS
from odebench.protocol.spec import check_horizon
from odebench.submission.entry import ENTRY_FILE, ID, Entry, Use, Weights, read_entry, shared_weights
from odebench.submission.folder import CODE_SUFFIX
from odebench.submission.own_model import own_model


@dataclass(frozen=True)
class SubmittedModel:
    """The model of an entry: a registered recipe with the entry's changes and weights, or a module of its own."""

    folder: Path
    entry: Entry

    @property
    def name(self) -> str:
        return self.entry.id

    @property
    def code(self) -> Path | None:
        """The entry's own module, which runs when the model is built; None if it brings none."""
        contributed = self.entry.contributed
        return None if contributed is None else self.folder / f"{contributed[0]}{CODE_SUFFIX}"

    def takes_horizon(self, dataset: DatasetDefinition) -> bool:
        return bool(self.entry.trained_for(dataset.name).horizons)

    def resolve(
        self,
        dataset: DatasetDefinition,
        *,
        horizon: float | None,
        train_horizon: float | None,
        train_seed: int,
        changes: Mapping[str, JsonValue],
    ) -> ResolvedModel:
        """The entry's model, with the weights that it lists for the data set, train horizon and seed. Raises UsageError
        for what the entry does not list, WeightError for a file of another sha256."""
        if changes:
            raise UsageError(f"{self.name} is an entry with a fixed recipe: leave out --set")
        use = self.entry.trained_for(dataset.name)
        trained_at = self._trained_at(use, horizon, train_horizon)
        listed = self._listed(use, trained_at, train_seed)
        weights = None if listed is None else self._location(listed)
        arguments = self.entry.arguments_for(use)
        origin: Origin
        if self.entry.contributed is None:
            origin = load_definition(self.entry.model).recipe(
                dataset, horizon=trained_at, train_seed=train_seed, changes=arguments
            )
            arguments = model_reference.held_changes(origin, arguments)
            identity = origin.key if listed is None else listed.sha256
        elif listed is None:
            raise UsageError(f"{self.name} lists no weights for {self._words(use, trained_at, train_seed)}")
        else:
            module, attribute = self.entry.contributed
            identity = listed.sha256
            origin = Contributed(
                folder=Path(os.path.abspath(self.folder)),  # another process looks from another folder
                module=module,
                attribute=attribute,
                arguments=arguments,
                image_shape=dataset.image_shape,
                n_classes=len(dataset.classes),
                train_seed=train_seed,
                horizon=trained_at,
                solver=None if trained_at is None else self.entry.solver_for(use),
                key=listed.sha256,
            )
            if trained_at is not None and origin.solver is None:
                raise UsageError(f"{self.name} has horizons on {use.name} and no solver; odebench validate says more")
        return ResolvedModel(self.name, {**arguments, "train_seed": train_seed}, origin, identity, weights)

    def weights_of(self, dataset: str, horizon: float | None, train_seed: int) -> Path | Address | None:
        """The file or address of the weights for a data set, train horizon and seed; None if the entry lists none.
        Raises WeightError for a file of another sha256."""
        listed = self.entry.weights_for(dataset, horizon, train_seed)
        return None if listed is None else self._location(listed)

    def _trained_at(self, use: Use, horizon: float | None, train_horizon: float | None) -> float | None:
        """The train horizon: the one asked for, else the entry's only one, else the evaluation's horizon, else 1."""
        if not use.horizons:
            if (horizon, train_horizon) != (None, None):
                raise UsageError(f"{self.name} integrates nothing, so it takes no --horizon and no --solver")
            return None
        for given in (horizon, train_horizon):
            if given is not None:
                check_horizon(given)
        wanted = train_horizon
        if wanted is None:
            wanted = use.horizons[0] if len(use.horizons) == 1 else 1.0 if horizon is None else horizon
        if wanted not in use.horizons:
            known = ", ".join(f"{each:g}" for each in use.horizons)
            raise UsageError(f"{self.name} is not trained at T={wanted:g} on {use.name}; --train-horizon is {known}")
        return wanted

    def _listed(self, use: Use, horizon: float | None, train_seed: int) -> Weights | None:
        """The weights that the entry lists; None if it lists none for the data set and horizon, so that the recipe of a
        registered model finds or trains them."""
        found = self.entry.weights_for(use.name, horizon, train_seed)
        of_data = [each for each in self.entry.weights if each.dataset == use.name and each.horizon == horizon]
        if found is None and of_data:
            seeds = ", ".join(str(each.train_seed) for each in of_data)
            said = self._words(use, horizon, train_seed)
            raise UsageError(f"{self.name} lists no weights for {said}; its seeds there: {seeds}")
        return found

    def _words(self, use: Use, horizon: float | None, train_seed: int) -> str:
        at = "" if horizon is None else f" at T={horizon:g}"
        return f"{use.name}{at} with train seed {train_seed}"

    def _location(self, weights: Weights) -> Path | Address:
        if weights.url is not None:
            return Address(weights.url, weights.sha256, weights.bytes)
        file = str(weights.file)
        whole = Path(os.path.abspath(self.folder))
        path = shared_weights(whole, file) or whole / file
        if model_reference.file_identity(path) != weights.sha256:
            raise WeightError(f"{path} has another sha256 than {ENTRY_FILE} says; odebench validate says more")
        return path


def find_model(name: str, *, weights: Path | None = None) -> ModelReference:
    """The model of a name: a registered one, an entry by its id or by the path of its folder (with a "/"), or code of
    one's own, such as my_net.py:Net.

    `weights` is a file for a registered model or one's own. An entry of a registered model's name is that model. Raises
    UsageError for an unknown name, with the nearest match and the list, and DocumentError for an unreadable entry.
    """
    if ":" in name:
        return own_model(name, weights)
    if name.endswith(".py"):
        raise UsageError(f"name the class in {name}, too, such as {name}:Net")
    registered = MODELS.entries()
    if "/" not in name and name in registered:
        return RegisteredModel(load_definition(name), weights)
    folder = find_entry(name)
    return reference_of(folder, read_entry(folder), weights=weights)


def find_entry(name: str) -> Path:
    """The folder of an entry, by its id or path (with a "/", or a folder of that name here). Raises UsageError for an
    unknown id, with the nearest match and the list, and for a folder without an entry."""
    known = entry_folders()
    folder = (
        Path(name) if "/" in name or (name not in known and (Path(name) / ENTRY_FILE).is_file()) else known.get(name)
    )
    if folder is None and name in MODELS.entries():
        raise UsageError(
            f"{name} has no entry here; odebench new-entry {name} --published writes it from its published results"
        )
    if folder is None and not (name and Path(name).is_dir()):
        raise unknown_name("model", name, [*MODELS.entries(), *known])
    folder = folder or Path(name)
    if not (folder / ENTRY_FILE).is_file():
        raise UsageError(f"there is no entry in {folder}: no {ENTRY_FILE}; odebench new-entry writes one to fill in")
    return folder


def results_beside(folder: Path) -> Path:
    """The folder of an entry's committed results: that of the leaderboard it lies in, else of ./leaderboard."""
    whole, around = Path(os.path.abspath(folder)), PublishedFolder.around(folder)
    return around.results if whole.parent.name == around.entries.name else LEADERBOARD.results


def reference_of(folder: Path, entry: Entry, *, weights: Path | None = None) -> ModelReference:
    """The model of an entry. Raises UsageError for an invalid id, and for `weights` if the entry lists its own."""
    registered = MODELS.entries()
    if not ID.fullmatch(entry.id):
        raise UsageError(f"{folder}: id {printable(entry.id)!r} cannot be one; odebench validate says more")
    if entry.id in registered:
        if entry.model != entry.id:
            raise UsageError(f"{folder}: id {entry.id!r} is the name of a registered model; choose another")
        return RegisteredModel(load_definition(entry.id), weights)
    if weights is not None:
        raise UsageError(f"{entry.id} is an entry, which lists its weights: leave out --weights")
    return SubmittedModel(folder, entry)


def entry_names() -> list[str]:
    """The ids of the published entries, sorted."""
    return sorted(entry_folders())


def entry_summaries() -> tuple[dict[str, tuple[Path, str]], dict[str, OdebenchError]]:
    """The folder of each published entry, and a line about it; and why others cannot be read."""
    found, problems = {}, {}
    for name, folder in sorted(entry_folders().items()):
        try:
            entry = read_entry(folder)
        except OdebenchError as error:
            problems[name] = error
            continue
        changes = ", ".join(f"{key}={value}" for key, value in entry.arguments.items())
        kind = "code of its own" if entry.contributed else f"{entry.model} with {changes}" if changes else entry.model
        found[name] = folder, f"{kind}; trained on {', '.join(use.name for use in entry.datasets)}"
    return found, problems


def entry_folders() -> dict[str, Path]:
    """The folders of published entries by name; where two have the same name, the first of `published_folders`."""
    found: dict[str, Path] = {}
    for leaderboard in published_folders():
        for path in sorted(leaderboard.entries.glob(f"*/{ENTRY_FILE}")):
            found.setdefault(path.parent.name, path.parent)
    return found
