"""A protocol: a grid of evaluations with a name and a version, written as YAML and read strictly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from odebench.errors import UsageError, unknown_name
from odebench.io.yaml_document import Document, Parts, near_word, read_document
from odebench.protocol import spec
from odebench.protocol.spec import Norm, Solver, Spec

SUFFIXES = (".yaml", ".yml")


def _number(value: Any) -> Any:
    """The number that a text writes, such as 8/255, or 1e-3, which YAML reads as text; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return spec.parse_number(value, name="it")
    except UsageError as error:
        raise ValueError("it must be a finite number, such as 0.1, 8/255 or 1e-3") from error


def _grid(value: Any) -> Any:
    if isinstance(value, str) and value != "default":
        raise ValueError("it must be a list of radii, or the word default: the data set's own")
    return None if value == "default" else value


Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
Seed = Annotated[int, Field(ge=0)]


def _seeds(value: Any) -> Any:
    """The seeds of a list, in which a text such as "3-44" stands for all seeds from 3 to 44; or of one such text."""
    found: list[Any] = []
    for one in [value] if isinstance(value, str) else value if isinstance(value, list) else [value]:
        if not isinstance(one, str):
            found.append(one)
            continue
        match = _RANGE.fullmatch(one)
        if match is None or not 0 <= (length := int(match[2]) - int(match[1])) < MAX_SEEDS:
            raise ValueError(f"it must be a list of seeds, or a range of at most {MAX_SEEDS} such as 0-44")
        found += range(int(match[1]), int(match[1]) + length + 1)
    return found


MAX_SEEDS = 1000
_RANGE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1, max_length=MAX_SEEDS, strict=False), BeforeValidator(_seeds)]
"""Train seeds: a list, or a range such as 0-44."""


class Images(Spec):
    """Which images. Of an image folder, of which only the name is known, shape, classes and sizes are given here."""

    name: str
    n: Annotated[int, Field(ge=1)]
    split: Literal["test", "validation"] = "test"
    offset: Annotated[int, Field(ge=0)] = 0
    image_shape: Annotated[tuple[int, int, int], Field(strict=False)] | None = None
    classes: Annotated[int, Field(ge=2)] | None = None
    sizes: dict[Literal["train", "validation", "test"], int] = Field(default_factory=dict)


class SolverChoice(Spec):
    """The solver of an evaluation in the words of the command line: a step, or a tolerance (rtol and atol)."""

    method: str
    step: Positive | None = None
    tolerance: Positive | None = None
    backend: Literal["torchode", "torchdiffeq"] = "torchode"
    max_steps: Annotated[int, Field(ge=1)] = 1000

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        known = dict.fromkeys((*spec.FIXED_STEP_STAGES, *spec.PER_SAMPLE_METHODS, *spec.JOINT_METHODS))
        if method not in known:
            raise ValueError(f"unknown method;{near_word(method, known)}")
        return method

    @model_validator(mode="after")
    def _consistent(self) -> SolverChoice:
        self.solver()
        return self

    def solver(self) -> Solver:
        """The solver as an evaluation holds it. Raises ValueError where step and tolerance do not fit the method."""
        if self.method in spec.FIXED_STEP_STAGES:
            if self.step is None or self.tolerance is not None:
                raise ValueError(f"{self.method} takes a step and no tolerance")
            return spec.fixed_step(self.method, step=self.step)
        if self.step is not None:
            raise ValueError(f"the adaptive method {self.method} takes a tolerance, not a step")
        rtol = 1e-3 if self.tolerance is None else self.tolerance
        return spec.adaptive(self.method, rtol=rtol, max_steps=self.max_steps, backend=self.backend)


class Threat(Spec):
    """A norm and its radii; null, written "default", for those of the data set."""

    norm: Norm
    epsilons: Annotated[
        Annotated[tuple[Positive, ...], Field(min_length=1, strict=False)] | None, BeforeValidator(_grid)
    ] = None


class AttackChoice(Spec):
    """An attack, the parameters that differ from its defaults, and `n` images where these are not the protocol's."""

    name: str
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Seed = 0


class Section(Spec):
    """One part of the grid: every model at every horizon and train seed, under every threat model and attack.

    A model without a horizon is evaluated once. With `train_horizons` a model trained at each of them is evaluated at
    every horizon; without, at the horizon of its training. With `equal_nfe` the step of the fixed-step method is chosen
    so that one integration evaluates the field this often at any horizon.
    """

    name: str
    models: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    train_seeds: Seeds
    threat_models: Annotated[tuple[Threat, ...], Field(min_length=1, strict=False)]
    attacks: Annotated[tuple[AttackChoice, ...], Field(min_length=1, strict=False)]
    horizons: Annotated[tuple[Positive, ...], Field(min_length=1, strict=False)] | None = None
    train_horizons: Annotated[tuple[Positive, ...], Field(min_length=1, strict=False)] | None = None
    solver: SolverChoice | None = None
    equal_nfe: Annotated[int, Field(ge=1)] | None = None
    recipes: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_solver(self) -> Section:
        if self.solver is not None and self.equal_nfe is not None:
            raise ValueError("a section has a solver or equal_nfe, not both")
        return self


class Protocol(Spec):
    """A grid of evaluations. A changed protocol is a new version.

    `recipes` are changes to recipes, by model. With `weights: false` --publish stores results alone, for claims: the
    weights can be trained again, and are too many to keep.
    """

    name: str
    version: Annotated[int, Field(ge=1)]
    summary: Annotated[str, Field(min_length=1)]
    dataset: Images
    sections: Annotated[tuple[Section, ...], Field(min_length=1, strict=False)]
    chunk: Annotated[int, Field(ge=1)] = 100
    threads: Annotated[int, Field(ge=1)] = 1
    weights: bool = True
    recipes: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)


_PARTS: Parts = {
    ("dataset",): Images,
    ("sections",): Section,
    ("sections", "solver"): SolverChoice,
    ("sections", "threat_models"): Threat,
    ("sections", "attacks"): AttackChoice,
}


def protocol_folder() -> Path:
    """The folder of odebench's own protocols: beside this module if it is installed, else in the checkout."""
    installed = Path(__file__).with_name("protocols")
    return installed if installed.is_dir() else Path(__file__).parents[2] / "benchmarks" / "protocols"


def protocol_files() -> dict[str, Path]:
    """The files of odebench's own protocols, by name."""
    return {path.stem: path for path in sorted(protocol_folder().glob("*.yaml"))}


def find_protocol(name: str) -> Path:
    """The file of one of odebench's own protocols, or a path that is given. Raises UsageError for an unknown name."""
    if name.endswith(SUFFIXES):
        return Path(name)
    files = protocol_files()
    if name not in files:
        error = unknown_name("protocol", name, files)
        raise UsageError(f"{error}; or a path that ends in .yaml")
    return files[name]


def read_protocol(path: Path) -> tuple[Protocol, Document]:
    """A protocol and its document. Raises DocumentError, with the line, for anything that does not fit."""
    document = read_document(path)
    if not isinstance(document.value, dict):
        raise document.error((), f"a protocol is a list of keys and values: {', '.join(Protocol.model_fields)}")
    return document.validate(Protocol, _PARTS), document
