"""An entry: a submitted model, as the entry.yaml of its folder describes it. Read strictly; no torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue

from odebench.errors import UsageError
from odebench.io.folders import PublishedFolder
from odebench.io.yaml_document import Document, DocumentError, Parts, read_document
from odebench.protocol.spec import MAX_EPSILON, MAX_IMAGES, Bounded, Norm, Sha256, Solver, Spec, parse_number

ENTRY_FILE, READ_ME = "entry.yaml", "README.md"
ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
MAX_ID_LETTERS = 40
_LOOKS = str.maketrans("015289i", "olszbgl", "-")
_SHARED_WEIGHTS = re.compile(r"\.\./\.\./weights/[0-9a-f]{64}\.safetensors")
"""How an entry names a file of the published weights, which entries share; any other file lies in its own folder."""


def _radius(value: Any) -> Any:
    """A radius as a number, also of a fraction such as 8/255; other texts are returned for the schema to refuse."""
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
Word = Annotated[str, Field(max_length=200)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10**13)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Use(Spec):
    """A data set that the model is trained for. `horizons` are the train horizons, none for a model without a field;
    `parameters` is the number of entries in one weights file; solver, arguments and training differ from the entry's.
    """

    name: Word
    horizons: Annotated[tuple[Positive, ...], Field(strict=False, max_length=1000)] = ()
    parameters: Count
    solver: Solver | None = None
    arguments: Bounded = Field(default_factory=dict)
    training: Bounded = Field(default_factory=dict)


class Weights(Spec):
    """One weights file: what it was trained on, its location (`file` in the folder, or `url`), sha256 and size."""

    dataset: Word
    horizon: Positive | None = None
    train_seed: Seed
    file: Text | None = None
    url: Text | None = None
    sha256: Sha256
    bytes: Count


class ClaimedFigure(Spec):
    """A figure claimed for the first `n` test images at one epsilon. `parameters` are those of the attack that differ
    from its defaults; accuracies are shares of n."""

    dataset: Word
    horizon: Positive | None = None
    train_seed: Seed
    norm: Norm
    epsilon: Annotated[float, BeforeValidator(_radius), Field(gt=0, le=MAX_EPSILON)]
    attack: Word
    parameters: Bounded = Field(default_factory=dict)
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)]
    clean_accuracy: Share | None = None
    robust_accuracy: Share

    def figures(self) -> Iterator[tuple[str, float]]:
        """The claimed accuracies, each with its name."""
        if self.clean_accuracy is not None:
            yield "clean_accuracy", self.clean_accuracy
        yield "robust_accuracy", self.robust_accuracy


class Entry(Spec):
    """A submitted model. `model` is a registered name, or module:attribute of the folder; `arguments` are changes of
    the registered recipe, or arguments of the attribute. `solver` is the solver of the training."""

    id: Word
    model: Word
    arguments: Bounded = Field(default_factory=dict)
    datasets: Annotated[tuple[Use, ...], Field(min_length=1, strict=False)]
    solver: Solver | None = None
    training: Annotated[Bounded, Field(min_length=1)]
    teacher: Text | None = None
    weights: Annotated[tuple[Weights, ...], Field(strict=False)] = ()
    authors: Annotated[tuple[Text, ...], Field(strict=False)]
    licence: Word
    paper: Text | None = None
    claims: Annotated[tuple[ClaimedFigure, ...], Field(strict=False)] = ()

    @property
    def contributed(self) -> tuple[str, str] | None:
        """The module and attribute of the folder that build the model; None for a registered model."""
        module, separator, attribute = self.model.partition(":")
        return (module, attribute) if separator else None

    def use(self, dataset: str) -> Use | None:
        """The entry's item for a data set; None if it is not trained for that."""
        return next((use for use in self.datasets if use.name == dataset), None)

    def trained_for(self, dataset: str) -> Use:
        """The entry's item for a data set. Raises UsageError if it is not trained for that."""
        use = self.use(dataset)
        if use is None:
            known = ", ".join(each.name for each in self.datasets)
            raise UsageError(f"{self.id} is not trained for {dataset}; its data sets: {known}")
        return use

    def only(self, dataset: str) -> Entry:
        """The entry with one of its data sets alone. Raises UsageError if it is not trained for that."""
        use = self.trained_for(dataset)
        weights = tuple(one for one in self.weights if one.dataset == dataset)
        claims = tuple(one for one in self.claims if one.dataset == dataset)
        return self.model_copy(update={"datasets": (use,), "weights": weights, "claims": claims})

    def weights_for(self, dataset: str, horizon: float | None, train_seed: int) -> Weights | None:
        """The weights listed for a data set, train horizon and train seed; None if there are none."""
        asked = (dataset, horizon, train_seed)
        return next((one for one in self.weights if (one.dataset, one.horizon, one.train_seed) == asked), None)

    def solver_for(self, use: Use) -> Solver | None:
        """The solver of the training for a data set."""
        return use.solver or self.solver

    def arguments_for(self, use: Use) -> dict[str, JsonValue]:
        """The arguments for a data set: the entry's, updated with those of the data set."""
        return {**self.arguments, **use.arguments}

    def training_for(self, use: Use) -> dict[str, JsonValue]:
        """The training for a data set: the entry's, updated with that of the data set."""
        return {**self.training, **use.training}


ENTRY_PARTS: Parts = {
    ("solver",): Solver,
    ("datasets",): Use,
    ("datasets", "solver"): Solver,
    ("weights",): Weights,
    ("claims",): ClaimedFigure,
}


def template_text(file: str) -> str:
    """A file of a new entry, with {id} where its id stands."""
    return (files("odebench.submission") / "template" / f"{file}.txt").read_text(encoding="utf-8")


def open_entry(folder: Path) -> tuple[Entry | None, Document, list[DocumentError]]:
    """The entry of a folder, its document, and the errors of the schema; the entry is None if there are any. Raises
    DocumentError for a file that cannot be read."""
    document = read_document(folder / ENTRY_FILE)
    if not isinstance(document.value, dict):
        keys = ", ".join(Entry.model_fields)
        return None, document, [document.error((), f"an entry is a list of keys and values: {keys}")]
    entry, errors = document.check(Entry, ENTRY_PARTS)
    return entry, document, errors


def read_entry(folder: Path) -> Entry:
    """The entry of a folder. Raises DocumentError, with the line, for the first value that does not fit the schema."""
    entry, _, errors = open_entry(folder)
    if entry is None:
        raise errors[0]
    return entry


def looks_like(given: str, others: Iterable[str]) -> str | None:
    """The first of other ids that a reader may take an id for, such as kd-ode for kd-0de; None if there is none."""
    look = _look(given)
    return next((other for other in sorted(others) if other != given and _look(other) == look), None)


def _look(text: str) -> str:
    """An id as it looks: letters that are taken for one another are one letter, dashes are nothing."""
    look = text.casefold().translate(_LOOKS)
    for pair, letter in (("rn", "m"), ("vv", "w"), ("cl", "d")):
        look = look.replace(pair, letter)
    return look


def shared_weights(folder: Path, file: str) -> Path | None:
    """The path of a file that the entry in `folder` names among the published weights; None for a file of its own."""
    return PublishedFolder.around(folder).weights / Path(file).name if _SHARED_WEIGHTS.fullmatch(file) else None


ACCEPTED = tuple(Path(__file__).with_name("licences.txt").read_text(encoding="utf-8").split())
"""The accepted licences, by SPDX name: others may run, change and pass on code and weights."""


def licence_problem(given: str) -> str | None:
    """Why a licence is not accepted, with the nearest accepted one; None for an accepted licence."""
    if given in ACCEPTED:
        return None
    folded = {name.casefold(): name for name in ACCEPTED}
    near = difflib.get_close_matches(given.casefold(), folded, n=1, cutoff=0.5)
    hint = f" did you mean {folded[near[0]]!r}?" if near else ""
    return f"{given!r} is not among the accepted licences;{hint} accepted (SPDX): {', '.join(ACCEPTED)}"
