"""An entry: a submitted model, as its folder's entry.yaml describes it. Read strictly; no torch here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue

from odebench.attack.definition import load_attack
from odebench.errors import UsageError
from odebench.io.folders import PublishedFolder
from odebench.io.yaml_document import Document, DocumentError, Parts, read_document
from odebench.protocol.spec import Evaluation, Norm, Sha256, Solver, Spec, parse_number, radius
from odebench.result.schema import EpsilonResult, Figure, Result

ENTRY_FILE, READ_ME = "entry.yaml", "README.md"
ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
MAX_ID_LETTERS = 40
_SHARED_WEIGHTS = re.compile(r"\.\./\.\./weights/[0-9a-f]{64}\.safetensors")
"""How an entry names a file among the published weights, which entries share; other files lie in its own folder."""
TIME_LIMIT = 3600
"""Seconds that an entry's own code may take when it is verified, unless told otherwise."""


def _radius(value: Any) -> Any:
    """A radius: a number, or a fraction such as 8/255. Other texts are left for the schema to refuse."""
    if not isinstance(value, str) or "/" not in value:
        return value
    try:
        return parse_number(value, name="it")
    except UsageError as error:
        raise ValueError("it must be a finite number, such as 0.1 or 8/255") from error


def _share(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 < value <= 100:
        raise ValueError(f"it must be a share from 0 to 1; did you mean {value / 100:.6g}?")
    return value


Text = Annotated[str, Field(min_length=1, max_length=2000)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Use(Spec):
    """A data set that the model is trained for. `horizons` are those it is trained at, none for a model without a
    field; `parameters` counts the numbers of one weights file; solver, arguments and training are what is other here.
    """

    name: str
    horizons: Annotated[tuple[Positive, ...], Field(strict=False)] = ()
    parameters: Count
    solver: Solver | None = None
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    training: dict[str, JsonValue] = Field(default_factory=dict)


class Weights(Spec):
    """One weights file: what it was trained on, where it is (`file` in the folder, or `url`), its digest and size."""

    dataset: str
    horizon: Positive | None = None
    train_seed: Annotated[int, Field(ge=0)]
    file: Text | None = None
    url: Text | None = None
    sha256: Sha256
    bytes: Count


class ClaimedFigure(Spec):
    """A figure that the authors claim, in the words of an evaluation: the first `n` test images, at one epsilon.

    `parameters` are those of the attack that are not its defaults. Accuracies are shares of n.
    """

    dataset: str
    horizon: Positive | None = None
    train_seed: Annotated[int, Field(ge=0)]
    norm: Norm
    epsilon: Annotated[float, BeforeValidator(_radius), Field(gt=0)]
    attack: str
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    n: Count
    clean_accuracy: Share | None = None
    robust_accuracy: Share

    def figures(self) -> Iterator[tuple[str, float]]:
        """The accuracies that are claimed, by name."""
        if self.clean_accuracy is not None:
            yield "clean_accuracy", self.clean_accuracy
        yield "robust_accuracy", self.robust_accuracy


class Entry(Spec):
    """A submitted model. `model` is a registered name, or module:attribute of the folder; `arguments` are changes of
    that name's recipe, or arguments of the attribute. `solver` is the one it was trained with."""

    id: str
    model: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    datasets: Annotated[tuple[Use, ...], Field(min_length=1, strict=False)]
    solver: Solver | None = None
    training: Annotated[dict[str, JsonValue], Field(min_length=1)]
    teacher: Text | None = None
    weights: Annotated[tuple[Weights, ...], Field(strict=False)] = ()
    authors: Annotated[tuple[Text, ...], Field(strict=False)]
    licence: str
    paper: Text | None = None
    claims: Annotated[tuple[ClaimedFigure, ...], Field(strict=False)] = ()

    @property
    def contributed(self) -> tuple[str, str] | None:
        """Module and attribute of the folder that the model is; None for a registered one."""
        module, separator, attribute = self.model.partition(":")
        return (module, attribute) if separator else None

    def use(self, dataset: str) -> Use | None:
        """What the entry says of one data set; None where it is not trained for it."""
        return next((use for use in self.datasets if use.name == dataset), None)

    def trained_for(self, dataset: str) -> Use:
        """What the entry says of one data set. Raises UsageError where it is not trained for it."""
        use = self.use(dataset)
        if use is None:
            known = ", ".join(each.name for each in self.datasets)
            raise UsageError(f"{self.id} is not trained for {dataset}; its data sets: {known}")
        return use

    def only(self, dataset: str) -> Entry:
        """The entry as if it were trained for one of its data sets alone. Raises UsageError where it is not."""
        use = self.trained_for(dataset)
        weights = tuple(one for one in self.weights if one.dataset == dataset)
        claims = tuple(one for one in self.claims if one.dataset == dataset)
        return self.model_copy(update={"datasets": (use,), "weights": weights, "claims": claims})

    def weights_for(self, dataset: str, horizon: float | None, train_seed: int) -> Weights | None:
        """The weights that are listed for a data set, train horizon and train seed; None where there are none."""
        asked = (dataset, horizon, train_seed)
        return next((one for one in self.weights if (one.dataset, one.horizon, one.train_seed) == asked), None)

    def solver_for(self, use: Use) -> Solver | None:
        """The solver that the model was trained with for a data set."""
        return use.solver or self.solver

    def arguments_for(self, use: Use) -> dict[str, JsonValue]:
        """The arguments for a data set: those of all, changed by its own."""
        return {**self.arguments, **use.arguments}

    def training_for(self, use: Use) -> dict[str, JsonValue]:
        """How the model was trained for a data set: as for all, changed by its own."""
        return {**self.training, **use.training}


ENTRY_PARTS: Parts = {
    ("solver",): Solver,
    ("datasets",): Use,
    ("datasets", "solver"): Solver,
    ("weights",): Weights,
    ("claims",): ClaimedFigure,
}


def open_entry(folder: Path) -> tuple[Entry | None, Document, list[DocumentError]]:
    """The entry of a folder, its file, and the errors of the schema; None where there are any. Raises DocumentError
    where the file cannot be read at all."""
    document = read_document(folder / ENTRY_FILE)
    if not isinstance(document.value, dict):
        keys = ", ".join(Entry.model_fields)
        return None, document, [document.error((), f"an entry is a list of keys and values: {keys}")]
    entry, errors = document.check(Entry, ENTRY_PARTS)
    return entry, document, errors


def read_entry(folder: Path) -> Entry:
    """The entry of a folder. Raises DocumentError, with the line, for the first thing that does not fit the schema."""
    entry, _, errors = open_entry(folder)
    if entry is None:
        raise errors[0]
    return entry


def shared_weights(folder: Path, file: str) -> Path | None:
    """Where a file lies that the entry in `folder` names among the published weights; None for one of its own."""
    return PublishedFolder.around(folder).weights / Path(file).name if _SHARED_WEIGHTS.fullmatch(file) else None


def speaks_of(claim: ClaimedFigure, entry: Entry, evaluation: Evaluation) -> bool:
    """Whether an evaluation is the one that a claim of an entry is about: the first n test images under this attack, at
    the horizon and under the solver that the weights were trained with. Raises UsageError for unknown parameters."""
    images, attack, use = evaluation.dataset, evaluation.attack, entry.use(claim.dataset)
    asked = (entry.id, claim.dataset, "test", claim.n, 0, claim.norm, claim.attack, claim.horizon, claim.horizon)
    found = (evaluation.model.name, images.name, images.split, images.n, images.offset, evaluation.threat_model.norm)
    return (
        asked == (*found, attack.name, evaluation.train_horizon, evaluation.horizon)
        and evaluation.solver == (use and entry.solver_for(use))
        and evaluation.model.train_seed == claim.train_seed
        and claim.epsilon in evaluation.threat_model.epsilons
        and attack.parameters == load_attack(claim.attack).complete(claim.parameters)
    )


def contradictions(claim: ClaimedFigure, result: Result) -> list[str]:
    """The figures of a claim that lie outside the interval of a result that it speaks of, a sentence each."""
    item: EpsilonResult = next(one for one in result.epsilons if one.epsilon == claim.epsilon)
    said = []
    for name, value in claim.figures():
        figure: Figure = getattr(item.figures, name)
        if not figure.low <= value <= figure.high:
            said.append(
                f"{name} is claimed to be {value:g}, {result.evaluation.attack.name} at {radius(claim.epsilon)} found "
                f"{figure.value:g} [{figure.low:.3g}, {figure.high:.3g}]"
            )
    return said


ACCEPTED = (
    "0BSD",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-2.0",
    "Artistic-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "EPL-2.0",
    "EUPL-1.2",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "ISC",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "MIT",
    "MPL-2.0",
    "Unlicense",
    "Zlib",
)
"""Open licences, under which others may run, change and pass on code and weights."""


def licence_problem(given: str) -> str | None:
    """Why a licence is not accepted, with the nearest that is; None for one that is."""
    if given in ACCEPTED:
        return None
    folded = {name.casefold(): name for name in ACCEPTED}
    near = difflib.get_close_matches(given.casefold(), folded, n=1, cutoff=0.5)
    hint = f" did you mean {folded[near[0]]!r}?" if near else ""
    return f"{given!r} is not among the accepted licences;{hint} accepted (SPDX): {', '.join(ACCEPTED)}"
