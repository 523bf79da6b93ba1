"""What can be written down before anything is loaded or trained: solver, threat model, evaluation, run key."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from odebench.errors import UsageError
from odebench.io.canonical_json import digest

FIXED_STEP_STAGES = {"euler": 1, "midpoint": 2, "heun3": 3, "rk4": 4}
PER_SAMPLE_METHODS = ("dopri5", "heun", "tsit5")
JOINT_METHODS = ("adaptive_heun", "bosh3", "dopri5", "dopri8", "fehlberg2")
VERDICT_BATCH = 100  # images of one batch of the verdict, whatever the chunk
TRAIN_SEED = "train_seed"
"""The argument of a model that is the seed of its training."""
FUNCTION_DIGEST = "function_sha256"
"""The parameter of an attack that is a function handed over in Python: the digest of its source."""
MAX_FIXED_STEPS = 10_000

Backend = Literal["torchdiffeq", "torchode"]
Norm = Literal["linf", "l2"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
NAME_PATTERN = r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,99}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""A name, never a path: it becomes part of file names."""
MAX_IMAGES = 10**6
"""More images than any test set here has: `offset` and `n` together are at most as many."""
MAX_EPSILON = 1e4  # more than the distance between any two images here
MAX_JSON = 20_000
"""Characters of the arguments, parameters or evidence of one object, as JSON."""
Item = TypeVar("Item")


class Spec(BaseModel):
    """A frozen value: no unknown keys, no strings for numbers, only finite numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _bounded(values: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if len(json.dumps(values)) > MAX_JSON:
        raise ValueError(f"more than {MAX_JSON} characters of JSON")
    return values


Bounded = Annotated[dict[str, JsonValue], AfterValidator(_bounded)]
"""Free JSON that is not larger than a reader can bear."""


class Solver(Spec):
    """A numerical ODE solver: with a `step` if that is fixed, else with `rtol`, `atol` and `max_steps`.

    Adaptive methods run per sample on torchode unless `backend` says torchdiffeq, which shares one step size
    among all images of a batch.
    """

    method: str
    backend: Backend
    step: Annotated[float, Field(le=1e6)] | None = None
    rtol: Annotated[float, Field(le=1e6)] | None = None
    atol: Annotated[float, Field(le=1e6)] | None = None
    max_steps: Annotated[int, Field(le=10**9)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Solver:
        if self.method in FIXED_STEP_STAGES and self.backend == "torchdiffeq":
            if self.step is None or self.step <= 0:
                raise ValueError(f"the fixed-step method {self.method} needs a step above 0")
            if (self.rtol, self.atol, self.max_steps) != (None, None, None):
                raise ValueError(f"the fixed-step method {self.method} takes a step, no tolerance or step limit")
            return self
        known = PER_SAMPLE_METHODS if self.backend == "torchode" else JOINT_METHODS
        if self.method not in known:
            fixed = ", ".join(FIXED_STEP_STAGES)
            raise ValueError(
                f"unknown method {self.method!r} for {self.backend}; "
                f"adaptive there: {', '.join(known)}; fixed-step (torchdiffeq): {fixed}"
            )
        if self.step is not None:
            raise ValueError(f"the adaptive method {self.method} takes tolerances, not a step")
        if self.rtol is None or self.atol is None or self.rtol <= 0 or self.atol <= 0:
            raise ValueError(f"the adaptive method {self.method} needs rtol and atol above 0")
        if self.max_steps is None or self.max_steps < 1:
            raise ValueError(f"the adaptive method {self.method} needs a finite max_steps of at least 1")
        return self

    @property
    def adaptive(self) -> bool:
        """Whether the solver chooses its own steps."""
        return self.step is None

    @property
    def couples_batch(self) -> bool:
        """Whether an image's logits depend on the images in its batch: so with torchdiffeq's adaptive methods."""
        return self.adaptive and self.backend == "torchdiffeq"

    def __str__(self) -> str:
        if self.adaptive:
            return f"{self.method} rtol {self.rtol:g} atol {self.atol:g} ({self.backend})"
        return f"{self.method} step {self.step:g}"


def fixed_step(method: str = "rk4", *, step: float) -> Solver:
    """A fixed-step solver on torchdiffeq; `step` is in the unit of the horizon."""
    return Solver(method=method, backend="torchdiffeq", step=float(step))


def adaptive(
    method: str = "dopri5",
    *,
    rtol: float = 1e-3,
    atol: float | None = None,
    max_steps: int = 1000,
    backend: Backend = "torchode",
) -> Solver:
    """An adaptive solver; `atol` is `rtol` unless given. `max_steps` bounds the steps of one image."""
    atol = rtol if atol is None else atol
    return Solver(method=method, backend=backend, rtol=float(rtol), atol=float(atol), max_steps=max_steps)


def middle(items: Sequence[Item]) -> Item:
    """The item of the middle epsilon, of items by rising epsilon; of an even number the upper of the two."""
    return items[len(items) // 2]


class ThreatModel(Spec):
    """A norm and the radii of its balls, rising, in units of the image range [0, 1]."""

    norm: Norm
    epsilons: Annotated[
        tuple[Annotated[float, Field(le=MAX_EPSILON)], ...], Field(min_length=1, max_length=50, strict=False)
    ]

    @field_validator("epsilons")
    @classmethod
    def _rising(cls, epsilons: tuple[float, ...]) -> tuple[float, ...]:
        if any(epsilon <= 0 for epsilon in epsilons):
            raise ValueError("every epsilon must be above 0")
        if any(b <= a for a, b in pairwise(epsilons)):
            raise ValueError("epsilons must rise, without repetition")
        return epsilons

    @property
    def middle_epsilon(self) -> float:
        """The epsilon that claims and examples are about."""
        return middle(self.epsilons)


class ModelSpec(Spec):
    """A model: its name, the arguments that were given, and a digest that identifies its weights.

    `weights` is the digest of a recipe (built-in models), the sha256 of a weights file, or for a module that was handed
    over the sha256 of its class name and state dict.
    """

    name: Name
    arguments: Bounded
    weights: Sha256

    @property
    def train_seed(self) -> JsonValue:
        """The seed of its training; null for a model that was handed over without one."""
        return self.arguments.get(TRAIN_SEED)

    @property
    def other_arguments(self) -> dict[str, JsonValue]:
        """The arguments without the train seed."""
        return {name: value for name, value in self.arguments.items() if name != TRAIN_SEED}


class DatasetSlice(Spec):
    """Images `offset` to `offset + n` of one split of a data set, in its fixed stratified order."""

    name: Name
    split: Literal["test", "validation"]
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)]
    offset: Annotated[int, Field(ge=0, le=MAX_IMAGES)]


class CoarseSolver(Spec):
    """A cheaper solver of the same weights that proposes candidates first."""

    solver: Solver


class AttackSpec(Spec):
    """An attack with all its parameters, its seed, and the models that transfer candidates come from."""

    name: Name
    parameters: Bounded
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    sources: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(strict=False, max_length=50)] = ()
    surrogate: CoarseSolver | None = None

    @property
    def effort(self) -> str | None:
        """The effort that was asked of it; null for an attack without one."""
        effort = self.parameters.get("effort")
        return None if effort is None else str(effort)

    @property
    def is_function(self) -> bool:
        """Whether the attack is a function that was handed over in Python, which no command can run."""
        return FUNCTION_DIGEST in self.parameters


class Evaluation(Spec):
    """All that determines a result and is known before the run. Its digest is the run key."""

    model: ModelSpec
    train_horizon: Annotated[float, Field(ge=-1e6, le=1e6)] | None
    horizon: Annotated[float, Field(ge=-1e6, le=1e6)] | None
    solver: Solver | None
    dataset: DatasetSlice
    threat_model: ThreatModel
    attack: AttackSpec
    chunk: Annotated[int, Field(ge=1, le=MAX_IMAGES)]
    precision: Literal["fp32", "bf16"]

    @property
    def run_key(self) -> str:
        """The sha256 of the canonical JSON of this evaluation."""
        return digest(self)


def parse_number(text: str, *, name: str) -> float:
    """The number of a text: a decimal ("0.1") or a fraction ("8/255").

    Raises UsageError for anything else, for a division by zero, and for numbers that are not finite.
    """
    try:
        if "/" in text:
            top, bottom = (float(part) for part in text.split("/"))
            value = top / bottom if math.isfinite(bottom) else math.nan
        else:
            value = float(text)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        like = "0.1 or 8/255" if name.endswith("epsilon") else "0.5 or 1e-3"
        raise UsageError(f"{name} {text!r} is not a finite number; write it like {like}")
    return value


def parse_epsilons(text: str, norm: str) -> tuple[float, ...]:
    """The radii of a text such as "0.1,8/255", rising. Raises UsageError where one is out of range or there twice."""
    values = [parse_number(part.strip(), name="epsilon") for part in text.split(",")]
    for value in values:
        check_epsilon(value, norm)
        if values.count(value) > 1:
            raise UsageError(f"epsilon {radius(value)} is given twice; remove one")
    return tuple(sorted(values))


def without_float32(epsilon: float) -> float:
    """The radius that was meant by one computed in float32: 0.1 for 0.10000000149, 8/255 for 0.031372551; any other as
    it is. Else one radius would make two tables."""
    if not math.isfinite(epsilon) or abs(epsilon) > 1e6 or _float32(epsilon) != epsilon:
        return epsilon
    levels = round(4 * 255 * epsilon) / 4
    if _float32(levels / 255) == epsilon:
        return levels / 255
    shortest = (float(f"{epsilon:.{digits}g}") for digits in range(1, 10))
    return next((value for value in shortest if _float32(value) == epsilon), epsilon)


def _float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def radius(epsilon: float) -> str:
    """A radius as it is written in papers: 0.1, 8/255 or 0.25/255."""
    levels = round(4 * 255 * epsilon) / 4 if epsilon <= MAX_EPSILON else math.inf
    if float(f"{epsilon:.3g}") != epsilon and levels / 255 == epsilon:
        return f"{levels:g}/255"
    return f"{epsilon:g}"


def check_epsilon(epsilon: float, norm: str) -> None:
    """Raises UsageError unless `epsilon` is finite, above 0, and for linf at most 1."""
    if not math.isfinite(epsilon) or epsilon <= 0:
        raise UsageError(f"epsilon {epsilon:g} must be a finite number above 0 (at 0 it is the clean accuracy)")
    if norm == "linf" and epsilon > 1:
        raise UsageError(
            f"epsilon {epsilon:g} is above 1, but images are in [0, 1]; "
            f"did you mean {epsilon:g}/255 = {epsilon / 255:.4g}?"
        )


def check_horizon(horizon: float) -> None:
    """Raises UsageError unless `horizon` is finite and above 0."""
    if not math.isfinite(horizon) or horizon <= 0:
        raise UsageError(f"horizon {horizon:g} must be a finite number above 0, such as 1 or 0.5")
