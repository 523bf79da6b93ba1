"""From the names and options of a run to its evaluation and recipe, before anything heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, ValidationError

from odebench.attack.definition import load_attack
from odebench.dataset.definition import DatasetDefinition
from odebench.errors import UsageError, invalid_value
from odebench.evaluation.model_reference import ModelReference, RegisteredModel
from odebench.evaluation.transfer_source import TransferSource, default_sources, parse_source, several_sources
from odebench.io.remote_weights import Address
from odebench.model.definition import Contributed, Origin, load_definition
from odebench.protocol.recipe import Recipe
from odebench.protocol.spec import (
    MAX_FIXED_STEPS,
    AttackSpec,
    CoarseSolver,
    DatasetSlice,
    Evaluation,
    ModelSpec,
    Norm,
    Solver,
    ThreatModel,
    check_epsilon,
    check_horizon,
    middle,
)

DEFAULT_N = 500
DEFAULT_CHUNK = 100

Split = Literal["test", "validation"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Slice:
    """Which images: the split, how many (None: 500, or all if there are fewer), from where, and the chunk."""

    split: Split = "test"
    n: int | None = None
    offset: int = 0
    chunk: int = DEFAULT_CHUNK

    def of(self, name: str, total: int) -> DatasetSlice:
        """The slice of a split of `total` images. Raises UsageError unless it is made of whole chunks."""
        if self.chunk < 1:
            raise UsageError(f"a chunk of {self.chunk} images is none; the default is {DEFAULT_CHUNK}")
        if self.offset not in range(0, max(1, total), self.chunk):
            last = (total - 1) // self.chunk * self.chunk
            raise UsageError(
                f"{name} has {total} {self.split} images in chunks of {self.chunk}; no chunk begins at offset "
                f"{self.offset}: choose a multiple of {self.chunk} from 0 to {last}"
            )
        rest = total - self.offset
        n = min(DEFAULT_N, rest) if self.n is None else self.n
        if not 1 <= n <= rest:
            raise UsageError(
                f"{name} has {total} {self.split} images; {n} from {self.offset} on cannot be taken: "
                f"choose -n between 1 and {rest}"
                + (f", in whole chunks of {self.chunk}" if rest > self.chunk > 1 else "")
            )
        if n % self.chunk and n != rest:
            below = n - n % self.chunk
            choices = [below] * (below > 0) + [min(below + self.chunk, rest)]
            raise UsageError(
                f"{n} images from {self.offset} on are not whole chunks of {self.chunk}; letters would depend on "
                f"the slice: take -n {' or '.join(map(str, choices))}"
            )
        return DatasetSlice(name=name, split=self.split, n=n, offset=self.offset)


@dataclass(frozen=True)
class Plan:
    """An evaluation, what its model is built from, and where the weights are (None: by the recipe)."""

    evaluation: Evaluation
    origin: Origin
    weights: Path | Address | None
    sources: tuple[TransferSource, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe of the model. Raises UsageError for a module that an entry brings."""
        if isinstance(self.origin, Contributed):
            raise UsageError(f"{self.evaluation.model.name} is a module of an entry's own: there is no recipe of it")
        return self.origin

    @property
    def handed_over(self) -> bool:
        """Whether nothing is known of the model's gradient beforehand: a module that an entry brings."""
        return isinstance(self.origin, Contributed)


def threat_model(
    attack: str, dataset: DatasetDefinition, *, norm: str | None, epsilons: tuple[float, ...] | None
) -> ThreatModel:
    """The norm and radii of a run: given, or the attack's first norm and the data set's grid for it (of which an
    attack that is narrow takes the middle one)."""
    definition = load_attack(attack)
    chosen = definition.norm(norm)
    radii = epsilons or dataset.epsilons.get(chosen)
    if definition.narrow and not epsilons and radii:
        radii = (middle(radii),)
    if not radii:
        raise UsageError(
            f"{dataset.name} has no default epsilons for {chosen}; give them, such as --epsilon 2/255,4/255"
        )
    for epsilon in radii:
        check_epsilon(epsilon, chosen)
    diagonal = math.sqrt(math.prod(dataset.image_shape))
    if chosen == "l2" and max(radii) > diagonal:
        raise UsageError(
            f"epsilon {max(radii):g} is above {diagonal:.3g}, the largest l2 distance between two images "
            f"of {dataset.name}"
        )
    norms: dict[str, Norm] = {"linf": "linf", "l2": "l2"}
    try:
        return ThreatModel(norm=norms[chosen], epsilons=radii)
    except ValidationError as error:
        raise invalid_value(error) from error


def plan(
    model: str | ModelReference,
    attack: str,
    dataset: DatasetDefinition,
    *,
    total: int,
    images: Slice | None = None,
    horizon: float | None = None,
    train_horizon: float | None = None,
    solver: Solver | None = None,
    norm: str | None = None,
    epsilons: tuple[float, ...] | None = None,
    train_seed: int = 0,
    attack_seed: int = 0,
    changes: Mapping[str, JsonValue] | None = None,
    parameters: Mapping[str, JsonValue] | None = None,
    weights: Path | None = None,
    sources: Sequence[str] | None = None,
    surrogate: Solver | None = None,
    precision: Precision = "fp32",
) -> Plan:
    """The evaluation of a model, by its registered name or as an entry has it, on a split of `total` images.

    `solver` and `horizon` are those of the evaluation; the model is trained with its default solver, at
    `train_horizon` (by default the evaluation's). `changes` alters the recipe by field name; `weights` is a file
    instead of what the recipe finds, for a registered name alone. `sources` are the models that transfer crafts
    candidates on (None: resnet of the same data and train seed). `surrogate` is a cheaper solver that proposes first,
    `precision` that of the attack's gradients; the verdict is fp32 on the declared solver. Raises UsageError.
    """
    contestant = RegisteredModel(load_definition(model), weights) if isinstance(model, str) else model
    attacked = load_attack(attack)
    threat = threat_model(attack, dataset, norm=norm, epsilons=epsilons)
    if horizon is not None:
        check_horizon(horizon)
    subject = contestant.subject(
        dataset, horizon=horizon, train_horizon=train_horizon, train_seed=train_seed, changes=changes or {}
    )
    name, origin = subject.name, subject.origin
    trained_at = origin.horizon
    if trained_at is None and solver is not None:
        raise UsageError(f"{name} integrates nothing, so it takes no --horizon and no --solver")
    _check_steps(origin.solver, trained_at)
    _check_steps(solver or origin.solver, trained_at if horizon is None else horizon)
    images = images or Slice()
    evaluated_at, evaluated_with = trained_at if horizon is None else horizon, solver or origin.solver
    texts: tuple[str, ...] = ()
    if attacked.needs_sources:
        sibling = name if subject.siblings else None
        default = (
            several_sources(sibling, dataset, origin) if attacked.many_sources else default_sources(dataset, origin)
        )
        texts = default if sources is None else tuple(dict.fromkeys(sources))
        if not texts and attacked.expansion is None:
            raise UsageError(f"{attack} needs a source to craft candidates on, such as --source ode:seed=1")
    elif attacked.needs_candidates and "file_sha256" not in (parameters or {}):
        raise UsageError(f"{attack} are made elsewhere: judge a file of them with odebench judge")
    elif sources:
        raise UsageError(f"{attack} crafts no candidates on other models, so it takes no source")
    if surrogate is not None and evaluated_with is None:
        raise UsageError(f"{name} integrates nothing, so no cheaper solver can propose for it")
    if surrogate is not None and surrogate.adaptive:
        raise UsageError(f"a surrogate takes fixed steps, such as rk4:1; {surrogate.method} chooses its own")
    parsed = tuple(
        parse_source(text, dataset, origin=origin, horizon=evaluated_at, solver=evaluated_with) for text in texts
    )
    _check_steps(surrogate, evaluated_at)
    for source in parsed:
        _check_steps(source.solver, source.horizon)
    try:
        evaluation = Evaluation(
            model=ModelSpec(
                name=name,
                arguments=dict(subject.arguments),
                weights=subject.identity,
            ),
            train_horizon=trained_at,
            horizon=evaluated_at,
            solver=evaluated_with,
            dataset=images.of(dataset.name, total),
            threat_model=threat,
            attack=AttackSpec(
                name=attack,
                parameters=attacked.complete(parameters),
                seed=attack_seed,
                sources=texts,
                surrogate=None if surrogate is None else CoarseSolver(solver=surrogate),
            ),
            chunk=images.chunk,
            precision=precision,
        )
    except ValidationError as error:
        raise invalid_value(error) from error
    return Plan(evaluation=evaluation, origin=origin, weights=subject.weights, sources=parsed)


def _check_steps(solver: Solver | None, horizon: float | None) -> None:
    """Raises UsageError, before anything is trained, where fixed steps would be too many to take."""
    if solver is None or solver.step is None or horizon is None:
        return
    if horizon > MAX_FIXED_STEPS * solver.step * (1 + 1e-9):
        raise UsageError(
            f"a step of {solver.step:g} needs more than {MAX_FIXED_STEPS} steps to reach horizon {horizon:g}; "
            "take a longer step"
        )


def planned_again(evaluation: Evaluation, model: ModelReference, dataset: DatasetDefinition, *, total: int) -> Plan:
    """The plan of an evaluation of `model`, on a split of `total` images. Raises UsageError where this odebench does
    not plan the same one."""
    spec, attack, part = evaluation.model, evaluation.attack, evaluation.dataset
    found = plan(
        model,
        attack.name,
        dataset,
        total=total,
        images=Slice(split=part.split, n=part.n, offset=part.offset, chunk=evaluation.chunk),
        horizon=evaluation.horizon,
        train_horizon=evaluation.train_horizon,
        solver=evaluation.solver,
        norm=evaluation.threat_model.norm,
        epsilons=evaluation.threat_model.epsilons,
        train_seed=spec.train_seed if isinstance(spec.train_seed, int) else 0,
        attack_seed=attack.seed,
        changes=spec.other_arguments if isinstance(model, RegisteredModel) else {},
        parameters=attack.parameters,
        sources=attack.sources,
        surrogate=None if attack.surrogate is None else attack.surrogate.solver,
        precision=evaluation.precision,
    )
    if found.evaluation.run_key != evaluation.run_key:
        raise UsageError(
            "its model was not trained by a recipe of this odebench (a weights file, a module, or another version)"
            if isinstance(model, RegisteredModel)
            else "the entry says other weights or arguments"
        )
    return found
