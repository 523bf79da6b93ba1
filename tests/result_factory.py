"""Valid results for tests of everything that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from odebench.numerics.statistics import wilson_lower
from odebench.protocol.spec import (
    AttackSpec,
    DatasetSlice,
    Evaluation,
    ModelSpec,
    Solver,
    ThreatModel,
    fixed_step,
)
from odebench.result.outcome import EXAMINATION
from odebench.result.schema import (
    CandidatesFile,
    Check,
    Cost,
    EpsilonResult,
    FelledBy,
    Figures,
    Found,
    Nfe,
    NfeSummary,
    Result,
    Versions,
    letter_figures,
    outcomes_digest,
)

RK4 = fixed_step(step=0.25)
EXAMINED = tuple(
    Check(
        id=int(id),
        name=id.label,
        status="pass",
        speaks_of="model",
        figure=1.0,
        threshold=0.5,
        k=None,
        n=None,
        why="nothing is masked",
        evidence={},
    )
    for id in EXAMINATION
)
"""The checks that a model must have to be ranked, all of them passed."""
VERSIONS = Versions(
    odebench="0.1.0",
    python="3.11.7",
    numpy="2.0",
    scipy="1.13",
    torch="2.4",
    torchdiffeq="0.2.5",
    torchode="1.0.1",
    foolbox="3.3.4",
    pyautoattack=None,
)


def hexadecimal(text: str) -> str:
    """A sha256 that stands for `text`."""
    return sha256(text.encode()).hexdigest()


def make_result(
    letters: Mapping[float, str],
    *,
    model: str = "kd-ode",
    arguments: Mapping[str, Any] | None = None,
    train_seed: int | None = 0,
    weights: str | None = None,
    horizon: float | None = 1.0,
    train_horizon: float | str | None = "horizon",
    solver: Solver | None = RK4,
    dataset: str = "digits",
    split: str = "test",
    data: str = "",
    offset: int = 0,
    norm: str = "linf",
    attack: str = "pgd",
    steps: int = 20,
    parameters: Mapping[str, Any] | None = None,
    attack_seed: int = 0,
    nfe: tuple[float, float] | None = (16.0, 16.0),
    flags: Sequence[str] = (),
    checks: Sequence[Any] = (),
    examined: bool | None = None,
    created: str = "2025-01-01T00:00:00Z",
    address: str | None = "https://example.org/candidates.safetensors",
) -> Result:
    """A result with `letters` by epsilon; `weights` and `data` name what was found.

    A worst case holds the checks that look for masked gradients, as `run` makes them, unless `examined` says otherwise.
    """
    seed = {} if train_seed is None else {"train_seed": train_seed}
    outcomes = [letters[epsilon] for epsilon in letters]
    examined = attack == "worst-case" if examined is None else examined
    added = [one for one in EXAMINED if examined and one.id not in {check.id for check in checks}]
    evaluation = Evaluation(
        model=ModelSpec(
            name=model, arguments={**(arguments or {}), **seed}, weights=hexadecimal(f"{model} {train_seed}")
        ),
        train_horizon=horizon if train_horizon == "horizon" else train_horizon,
        horizon=horizon,
        solver=None if horizon is None else solver,
        dataset=DatasetSlice(name=dataset, split=split, n=len(outcomes[0]), offset=offset),
        threat_model=ThreatModel(norm=norm, epsilons=tuple(letters)),
        attack=AttackSpec(name=attack, parameters=dict(parameters or {"steps": steps}), seed=attack_seed),
        chunk=100,
        precision="fp32",
    )
    felled = f"candidates of {evaluation.attack.parameters.get('credit')}" if attack == "candidates" else "first"
    epsilons = tuple(epsilon_result(epsilon, text, felled=felled) for epsilon, text in letters.items())
    summaries = [NfeSummary(mean=mean, p95=mean, max=int(mean) + 1) for mean in nfe or ()]
    has_field = bool(summaries) and horizon is not None
    return Result(
        schema_version=2,
        run_key=evaluation.run_key,
        evaluation=evaluation,
        found=Found(
            dataset_sha256=hexadecimal(data or dataset),
            weights_sha256=hexadecimal(weights or f"{model} {arguments} {train_seed} {train_horizon} {horizon}"),
            sources_sha256={},
            parameters=1000,
            versions=VERSIONS,
            device="cpu",
            threads=1,
            trained_on=None,
            candidates=CandidatesFile(sha256=given, address=address) if (given := _given(evaluation)) else None,
        ),
        epsilons=epsilons,
        nfe=Nfe(
            clean=summaries[0] if has_field else None,
            adversarial=summaries[1] if has_field else None,
        ),
        cost=Cost(forward=21.0, backward=20.0, seconds=1.5, stages=()),
        checks=tuple(sorted([*added, *checks], key=lambda check: check.id)),
        flags=tuple(flags),
        outcomes_sha256=outcomes_digest(epsilons),
        created=created,
        doubt=(),
    )


def _given(evaluation: Evaluation) -> str | None:
    """The sha256 of the file of candidates that an evaluation judges."""
    given = evaluation.attack.parameters.get("file_sha256")
    return str(given) if evaluation.attack.name == "candidates" and given else None


def without_times(result: Result) -> Result:
    """The same, with nothing that hangs on how fast the machine is."""
    stages = tuple(stage.model_copy(update={"seconds": 0.0}) for stage in result.cost.stages)
    cost = result.cost.model_copy(update={"seconds": 0.0, "stages": stages})
    return result.model_copy(update={"created": "", "cost": cost})


def counted_check(name: str = "solver gap", *, id: int = 16, k: int, n: int, why: str = "images that move") -> Check:
    """A check that counts k of n images, with the status that this means."""
    bound = wilson_lower(k, n)
    return Check(
        id=id,
        name=name,
        status="flag" if bound > 0.01 else "pass",
        speaks_of="model",
        figure=bound,
        threshold=0.01,
        k=k,
        n=n,
        why=why,
        evidence={},
    )


def epsilon_result(epsilon: float, outcomes: str, *, felled: str = "first") -> EpsilonResult:
    """One radius with these outcomes, every fallen image felled by one and the same stage."""
    return EpsilonResult(
        epsilon=epsilon,
        outcomes=outcomes,
        felled_by=FelledBy(
            letters="".join("aa" if letter in "fx" else "--" for letter in outcomes), legend={"aa": felled}
        ),
        figures=Figures(**letter_figures(outcomes), norm_quantiles=None, invalid=0),
    )
