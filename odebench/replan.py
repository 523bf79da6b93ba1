"""The plan of an evaluation that was written down before, as a result holds it. No torch here."""

from __future__ import annotations

from odebench.dataset.definition import DatasetDefinition
from odebench.errors import UsageError
from odebench.plan import Plan, Slice, plan
from odebench.protocol.spec import Evaluation
from odebench.subject import Contestant, Registered

_TRAIN_SEED = "train_seed"


def planned_again(evaluation: Evaluation, model: Contestant, dataset: DatasetDefinition, *, total: int) -> Plan:
    """The plan of an evaluation of `model`, on a split of `total` images. Raises UsageError where this odebench does
    not plan the same one."""
    spec, attack, part = evaluation.model, evaluation.attack, evaluation.dataset
    seed = spec.arguments.get(_TRAIN_SEED)
    changes = {name: value for name, value in spec.arguments.items() if name != _TRAIN_SEED}
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
        train_seed=seed if isinstance(seed, int) else 0,
        attack_seed=attack.seed,
        changes=changes if isinstance(model, Registered) else {},
        parameters=attack.parameters,
        sources=attack.sources,
        surrogate=None if attack.surrogate is None else attack.surrogate.solver,
        precision=evaluation.precision,
    )
    if found.evaluation.run_key != evaluation.run_key:
        raise UsageError(
            "its model was not trained by a recipe of this odebench (a weights file, a module, or another version)"
            if isinstance(model, Registered)
            else "the entry says other weights or arguments"
        )
    return found
