"""From a request to the plan of an evaluation, before anything heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, ValidationError

from odebench.attack.definition import AttackDefinition, DiagnosisDefinition, NamedAttack, load_attack
from odebench.dataset.definition import DatasetDefinition
from odebench.errors import UsageError, invalid_value
from odebench.evaluation.image_slice import DEFAULT_CHUNK as DEFAULT_CHUNK
from odebench.evaluation.image_slice import DEFAULT_N as DEFAULT_N
from odebench.evaluation.image_slice import Slice as Slice
from odebench.evaluation.image_slice import Split as Split
from odebench.evaluation.model_reference import ModelReference, RegisteredModel, ResolvedModel
from odebench.evaluation.transfer_source import TransferSource, default_sources, parse_source, several_sources
from odebench.io.remote_weights import Address
from odebench.model.definition import Contributed, Origin, load_definition
from odebench.protocol.recipe import Recipe
from odebench.protocol.spec import (
    MAX_FIXED_STEPS,
    AttackSpec,
    CoarseSolver,
    Evaluation,
    ModelSpec,
    Norm,
    Solver,
    ThreatModel,
    check_epsilon,
    check_horizon,
    middle,
    without_float32,
)

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class EvaluationRequest:
    """What is asked for, before it is checked: the model by its registered name or as a reference, the attack by name.

    `solver` and `horizon` are those of the evaluation; None stands for what the model is trained with. The model is
    trained with its default solver, at `train_horizon` (by default the horizon of the evaluation). `norm` and
    `epsilons` are by default the attack's and the data set's. `changes` alter the recipe by field name, `parameters`
    the attack. `sources` are the models that transfer crafts candidates on (None: those that the attack has by
    default). `surrogate` is a coarser solver, of the same weights, that is attacked first; `precision` is that of the
    attack's gradients. The verdict is always fp32 on the declared solver.
    """

    model: str | ModelReference
    attack: str
    images: Slice = field(default_factory=Slice)
    horizon: float | None = None
    train_horizon: float | None = None
    solver: Solver | None = None
    norm: str | None = None
    epsilons: tuple[float, ...] | None = None
    train_seed: int = 0
    attack_seed: int = 0
    changes: Mapping[str, JsonValue] = field(default_factory=dict)
    parameters: Mapping[str, JsonValue] = field(default_factory=dict)
    sources: Sequence[str] | None = None
    surrogate: Solver | None = None
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Plan:
    """An evaluation, what its model and sources are built from, and where its weights are (None: by the recipe)."""

    evaluation: Evaluation
    origin: Origin
    weights: Path | Address | None
    sources: tuple[TransferSource, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe of the model. Raises UsageError for a module that an entry brings."""
        if isinstance(self.origin, Contributed):
            raise UsageError(f"{self.evaluation.model.name} is an entry's own module, which has no recipe")
        return self.origin

    @property
    def handed_over(self) -> bool:
        """Whether the model is a module that an entry brings: nothing is known of its gradient beforehand."""
        return isinstance(self.origin, Contributed)


def threat_model(
    attack: str | NamedAttack, dataset: DatasetDefinition, *, norm: str | None, epsilons: tuple[float, ...] | None
) -> ThreatModel:
    """The norm and epsilons of an evaluation: those given, else the attack's first norm and the data set's epsilons
    for it, or only their middle one for a quick diagnosis. Raises UsageError."""
    definition = load_attack(attack) if isinstance(attack, str) else attack
    chosen = definition.norm(norm)
    radii = tuple(map(without_float32, epsilons)) if epsilons else dataset.epsilons.get(chosen)
    if isinstance(definition, DiagnosisDefinition) and definition.only_middle and not epsilons and radii:
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


def plan(request: EvaluationRequest, dataset: DatasetDefinition, *, total: int) -> Plan:
    """The plan of a request, on a split of `total` images. Raises UsageError, FileError for weights."""
    model = RegisteredModel(load_definition(request.model)) if isinstance(request.model, str) else request.model
    attack = load_attack(request.attack)
    threat = threat_model(request.attack, dataset, norm=request.norm, epsilons=request.epsilons)
    if request.horizon is not None:
        check_horizon(request.horizon)
    resolved = model.resolve(
        dataset,
        horizon=request.horizon,
        train_horizon=request.train_horizon,
        train_seed=request.train_seed,
        changes=request.changes,
    )
    if request.solver is not None and resolved.origin.horizon is None and model.takes_horizon(dataset):
        raise UsageError(f"{resolved.name} integrates by itself: it takes --horizon, no --solver")
    horizon, solver = _horizon_and_solver(request, resolved)
    texts = _source_texts(request, attack, resolved, dataset)
    _check_surrogate(request.surrogate, resolved.name, solver)
    sources = tuple(
        parse_source(text, dataset, origin=resolved.origin, horizon=horizon, solver=solver) for text in texts
    )
    _check_steps(request.surrogate, horizon)
    for source in sources:
        _check_steps(source.solver, source.horizon)
    try:
        evaluation = Evaluation(
            model=ModelSpec(name=resolved.name, arguments=dict(resolved.arguments), weights=resolved.identity),
            train_horizon=resolved.origin.horizon,
            horizon=horizon,
            solver=solver,
            dataset=request.images.of(dataset.name, total),
            threat_model=threat,
            attack=AttackSpec(
                name=request.attack,
                parameters=attack.complete(request.parameters),
                seed=request.attack_seed,
                sources=texts,
                surrogate=None if request.surrogate is None else CoarseSolver(solver=request.surrogate),
            ),
            chunk=request.images.chunk_of(total),
            precision=request.precision,
        )
    except ValidationError as error:
        raise invalid_value(error) from error
    return Plan(evaluation=evaluation, origin=resolved.origin, weights=resolved.weights, sources=sources)


def _horizon_and_solver(request: EvaluationRequest, resolved: ResolvedModel) -> tuple[float | None, Solver | None]:
    """The horizon and solver of the evaluation; None for a model that integrates nothing. Raises UsageError."""
    origin = resolved.origin
    if origin.horizon is None and request.solver is not None:
        raise UsageError(f"{resolved.name} integrates nothing, so it takes no --horizon and no --solver")
    horizon = origin.horizon if request.horizon is None or origin.horizon is None else request.horizon
    solver = request.solver or origin.solver
    _check_steps(origin.solver, origin.horizon)
    _check_steps(solver, horizon)
    return horizon, solver


def _source_texts(
    request: EvaluationRequest, attack: NamedAttack, resolved: ResolvedModel, dataset: DatasetDefinition
) -> tuple[str, ...]:
    """The sources that the attack crafts candidates on, as texts. Raises UsageError where it lacks what it needs."""
    if attack.needs_sources:
        texts = request.sources
        if texts is None and isinstance(attack, DiagnosisDefinition):
            texts = several_sources(resolved.name if resolved.siblings else None, dataset, resolved.origin)
        elif texts is None:
            texts = default_sources(dataset, resolved.origin)
        if not texts and isinstance(attack, AttackDefinition):
            raise UsageError(f"{attack.name} needs a source to craft candidates on, such as --source ode:seed=1")
        return tuple(dict.fromkeys(texts))
    if attack.needs_candidates and "file_sha256" not in request.parameters:
        raise UsageError(f"{attack.name} are made elsewhere: judge a file of them with odebench judge")
    if request.sources:
        raise UsageError(f"{attack.name} crafts no candidates on other models, so it takes no source")
    return ()


def _check_surrogate(surrogate: Solver | None, name: str, solver: Solver | None) -> None:
    """Raises UsageError for a coarse solver that cannot propose first."""
    if surrogate is not None and solver is None:
        raise UsageError(f"{name} integrates nothing, so no cheaper solver can propose for it")
    if surrogate is not None and surrogate.adaptive:
        raise UsageError(f"a surrogate takes fixed steps, such as rk4:1; {surrogate.method} chooses its own")


def _check_steps(solver: Solver | None, horizon: float | None) -> None:
    """Raises UsageError, before anything is trained, if a fixed step would be taken too many times."""
    if solver is None or solver.step is None or horizon is None:
        return
    if horizon > MAX_FIXED_STEPS * solver.step * (1 + 1e-9):
        many = f"more than {MAX_FIXED_STEPS} steps to reach horizon {horizon:g}"
        raise UsageError(f"a step of {solver.step:g} needs {many}; take a longer step")


def slice_of(evaluation: Evaluation) -> Slice:
    """The images of an evaluation."""
    part = evaluation.dataset
    return Slice(split=part.split, n=part.n, offset=part.offset, chunk=evaluation.chunk)


def request_of(evaluation: Evaluation, model: ModelReference) -> EvaluationRequest:
    """The request that led to a stored evaluation of `model`."""
    spec, attack = evaluation.model, evaluation.attack
    return EvaluationRequest(
        model,
        attack.name,
        images=slice_of(evaluation),
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


def planned_again(evaluation: Evaluation, model: ModelReference, dataset: DatasetDefinition, *, total: int) -> Plan:
    """The plan of a stored evaluation of `model`, on a split of `total` images. Raises UsageError where this odebench
    does not plan the same evaluation."""
    found = plan(request_of(evaluation, model), dataset, total=total)
    if found.evaluation.run_key != evaluation.run_key:
        raise UsageError(
            "its model was not trained by a recipe of this odebench (a weights file, a module, or another version)"
            if isinstance(model, RegisteredModel)
            else "the entry names other weights or arguments"
        )
    return found
