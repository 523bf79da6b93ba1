"""Sources of transfer: other models on which candidates are crafted, each written as a short text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from odebench.dataset.definition import DatasetDefinition
from odebench.errors import UsageError, invalid_value
from odebench.model.definition import Contributed, Origin, load_definition
from odebench.protocol.recipe import Recipe
from odebench.protocol.spec import FIXED_STEP_STAGES, Solver, check_horizon, parse_number

DEFAULT_SOURCE = "resnet"
"""Candidates come from this model, of the same data and train seed, unless sources are named."""
OTHER_SOURCES = ("resnet", "ode-ablated")
"""The sources of check 12, beside the next train seed of the model itself."""
ITSELF = "self"
_KEYS = ("seed", "horizon", "solver", "step", "tolerance", "backend", "gradient")


@dataclass(frozen=True)
class TransferSource:
    """A source: its text, what it is built from, and how it is integrated (None: it has no field).

    `itself`: it has the weights of the evaluated model. `gradient` is direct or that of the adjoint equation.
    """

    text: str
    origin: Origin
    horizon: float | None
    solver: Solver | None
    itself: bool
    gradient: Literal["direct", "adjoint"] = "direct"

    @property
    def recipe(self) -> Recipe:
        """The recipe of its weights. Raises UsageError where the source is a module that an entry brings."""
        if isinstance(self.origin, Contributed):
            raise UsageError(f"source {self.text!r} is an entry's own module, which has no recipe")
        return self.origin


def parse_source(
    text: str, dataset: DatasetDefinition, *, origin: Origin, horizon: float | None, solver: Solver | None
) -> TransferSource:
    """The source that a text names, for the model of `origin` evaluated at `horizon` with `solver`.

    The text is NAME[:KEY=VALUE]...: a model's name with seed, horizon, solver, step, tolerance or backend, such as
    resnet, kd-ode:seed=1 or ode:horizon=2; or self for the same weights, such as self:solver=dopri5:tolerance=1e-3.
    With gradient=adjoint the candidates follow the gradient of the adjoint equation, as odeint_adjoint computes it.
    Raises UsageError.
    """
    name, *pairs = text.split(":")
    given = dict(pair.partition("=")[::2] for pair in pairs)
    if len(given) < len(pairs):
        raise UsageError(f"source {text!r} sets one thing twice")
    if strange := set(given) - set(_KEYS):
        raise UsageError(f"source {text!r}: unknown {', '.join(sorted(strange))}; known: {', '.join(_KEYS)}")
    at = parse_number(given["horizon"], name="horizon") if "horizon" in given else None
    if at is not None:
        check_horizon(at)
    chosen, gradient = _solver(text, given), _gradient(text, given)
    if name == ITSELF:
        if "seed" in given:
            raise UsageError(f"source {text!r}: self has the weights of the model; name the model to choose a seed")
        if origin.horizon is None and (chosen, at, gradient) != (None, None, "direct"):
            raise UsageError(f"source {text!r}: the model integrates nothing: no horizon, no solver, no adjoint")
        return TransferSource(
            text, origin, horizon if at is None else at, chosen or solver, itself=True, gradient=gradient
        )
    definition = load_definition(name)
    if not given.get("seed", "0").isdecimal():
        raise UsageError(f"source {text!r}: a seed is an integer of at least 0, not {given['seed']!r}")
    if (chosen is not None or gradient == "adjoint") and not definition.has_horizon:
        raise UsageError(f"source {text!r}: {name} integrates nothing, so it takes no solver and has no adjoint")
    seed = int(given.get("seed", origin.train_seed))
    trained = definition.recipe(dataset, horizon=at, train_seed=seed)
    return TransferSource(text, trained, trained.horizon, chosen or trained.solver, itself=False, gradient=gradient)


def default_sources(dataset: DatasetDefinition, origin: Origin) -> tuple[str, ...]:
    """The default source, unless the model is that very source."""
    default = load_definition(DEFAULT_SOURCE).recipe(dataset, train_seed=origin.train_seed)
    return () if default.key == origin.key else (DEFAULT_SOURCE,)


def several_sources(model: str | None, dataset: DatasetDefinition, origin: Origin) -> tuple[str, ...]:
    """The sources that are not the model itself: resnet, ode-ablated, and the next train seed of a registered model."""
    others = tuple(
        name
        for name in OTHER_SOURCES
        if load_definition(name).recipe(dataset, train_seed=origin.train_seed).key != origin.key
    )
    if model is None:
        return others
    horizon = "" if origin.horizon in (None, 1.0) else f":horizon={origin.horizon:.17g}"
    return (*others, f"{model}:seed={origin.train_seed + 1}{horizon}")


def _gradient(text: str, given: Mapping[str, str]) -> Literal["direct", "adjoint"]:
    gradient = given.get("gradient", "direct")
    if gradient not in ("direct", "adjoint"):
        raise UsageError(f"source {text!r}: the gradient is direct or adjoint, not {gradient!r}")
    return "adjoint" if gradient == "adjoint" else "direct"


def _solver(text: str, given: Mapping[str, str]) -> Solver | None:
    if "solver" not in given:
        if set(given) & {"step", "tolerance", "backend"}:
            raise UsageError(f"source {text!r}: step, tolerance and backend go with a solver, such as solver=dopri5")
        return None
    method = given["solver"]
    fixed = method in FIXED_STEP_STAGES
    if idle := set(given) & ({"tolerance", "backend"} if fixed else {"step"}):
        raise UsageError(f"source {text!r}: {method} takes no {' and no '.join(sorted(idle))}")
    if fixed:
        settings = {"backend": "torchdiffeq", "step": parse_number(given.get("step", "0.25"), name="step")}
    else:
        tolerance = parse_number(given.get("tolerance", "1e-3"), name="tolerance")
        settings = {"backend": given.get("backend", "torchode"), "rtol": tolerance, "atol": tolerance}
    try:
        return Solver.model_validate({"method": method, "max_steps": None if fixed else 1000, **settings})
    except ValidationError as error:
        raise UsageError(f"source {text!r}: {invalid_value(error)}") from error
