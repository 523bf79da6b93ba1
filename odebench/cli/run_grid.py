"""What `odebench run` does with several models, attacks, horizons, seeds or data sets: a grid, in parallel, resumed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from odebench.attack.definition import load_attack
from odebench.cli import options
from odebench.cli.console import print_table, write_text
from odebench.cli.evaluation import Evaluator
from odebench.cli.warnings import before_run
from odebench.errors import UsageError
from odebench.evaluation.model_reference import ModelReference
from odebench.evaluation.plan import EvaluationRequest, plan
from odebench.leaderboard.figures import CARRY_OVER, carried_figures
from odebench.leaderboard.grouping import group
from odebench.protocol.spec import radius
from odebench.result.file import read_result, result_json, result_path
from odebench.result.schema import Figure, Result
from odebench.sweep.protocol_cells import Grid, grid_of

if TYPE_CHECKING:
    from odebench.dataset import DatasetDefinition

NAME = "run"


@dataclass(frozen=True)
class Combinations:
    """The values of a run that may be several; every combination is an evaluation."""

    models: Sequence[ModelReference]
    attacks: Sequence[str]
    horizons: Sequence[float | None]
    train_seeds: Sequence[int]
    epsilons: list[str] | None

    def requests(self, request: EvaluationRequest, dataset: DatasetDefinition) -> Iterator[EvaluationRequest]:
        """The requests on one data set, each like `request` in all else.

        Models without a field are evaluated once, without a solver, and sources go to the attacks that craft candidates
        on them; where no model has a field, or no attack takes a source, the plan refuses what is given. Raises
        UsageError.
        """
        fieldless = self.without_field(dataset)
        some_transfer = any(load_attack(name).needs_sources for name in self.attacks)
        for attack in self.attacks:
            sources = request.sources if load_attack(attack).needs_sources or not some_transfer else None
            epsilons = options.radii_of(self.epsilons, attack, request.norm)
            one = replace(request, attack=attack, sources=sources, epsilons=epsilons)
            for model in self.models:
                once = model in fieldless
                mine = replace(one, train_horizon=None, solver=None, surrogate=None) if once else one
                for horizon in (None,) if once else self.horizons:
                    for seed in self.train_seeds:
                        yield replace(mine, model=model, horizon=horizon, train_seed=seed)

    def without_field(self, dataset: DatasetDefinition) -> list[ModelReference]:
        """The models that take no horizon and no solver, among others that do; none where no model does."""
        without = [model for model in self.models if not model.takes_horizon(dataset)]
        return without if len(without) < len(self.models) else []


def grids_of(
    combinations: Combinations, request: EvaluationRequest, evaluators: Sequence[Evaluator]
) -> list[tuple[Evaluator, Grid]]:
    """The grid of each data set. Raises UsageError for what cannot be evaluated, and for an evaluation that is there
    twice, such as that of an entry by its id and by its folder."""
    found = []
    for evaluator in evaluators:
        described = evaluator.describe()
        total = evaluator.images(described, request.images.split)
        grid = grid_of(
            [plan(one, described, total=total) for one in combinations.requests(request, described)], described
        )
        new = [
            cell.plan
            for cell in grid.cells
            if evaluator.force or not result_path(evaluator.results, cell.plan.evaluation).exists()
        ]
        if combinations.horizons != [None] or request.solver is not None or request.surrogate is not None:
            names = {one.evaluation.model.name for one in new}
            for model in (one for one in combinations.without_field(described) if one.name in names):
                evaluator.progress.say(f"{model.name} has no field to integrate: evaluated once, with no solver or T")
        told = {line for one in new for line in before_run(one)}
        for line in sorted(told):
            evaluator.progress.warn(line)
        keys = [cell.run_key for cell in grid.cells]
        for cell in grid.cells:
            if keys.count(cell.run_key) > 1:
                raise UsageError(f"{cell.title} on {described.name} is given twice; remove one")
        found.append((evaluator, grid))
    return found


def run_grid(grids: Sequence[tuple[Evaluator, Grid]], *, workers: int | None, as_json: bool) -> None:
    """Runs grids with the engine of sweeps, and prints their results. Exits with 1 where an evaluation failed."""
    from odebench.cli.sweep import conclude
    from odebench.cli.watch import watching
    from odebench.sweep.scheduler import Cluster, sweep, workspace_of

    (evaluator, grid), *_ = grids
    workspace = workspace_of(
        grid,
        results=evaluator.results,
        data_dir=evaluator.data_dir,
        device=evaluator.device,
        replaces=evaluator.force,
    )
    with watching(NAME, replaces=evaluator.force) as watcher:
        state = sweep(
            *(grid for _, grid in grids), workspace=workspace, cluster=Cluster(workers=workers), watcher=watcher
        )
    failed = {key.removeprefix("evaluate-") for key in state.failed}
    paths = [
        result_path(evaluator.results, cell.plan.evaluation)
        for _, grid in grids
        for cell in grid.cells
        if cell.run_key not in failed
    ]
    results = [read_result(path) for path in paths]
    if as_json:
        write_text("[\n" + ",\n".join(result_json(result).strip() for result in results) + "\n]")
    else:
        print_results(results)
    conclude(state, NAME, Path(evaluator.results), out=sys.stderr if as_json else None)


def print_results(results: Sequence[Result]) -> None:
    """Prints a table for the results of each data set, norm and list of epsilons: a row per result."""
    for (dataset, split, norm, epsilons), same in group(results, _table).items():
        print(f"{dataset} ({split}), {norm}: accuracy in %, with half the width of its 95% interval")
        columns = ["model", "T", "seed", "attack", "n", "clean", *(f"robust {radius(one)}" for one in epsilons)]
        print_table(columns, [_row(result) for result in same], right=tuple(range(4, len(columns))))
        print()
    if any(figures.carried for result in results for figures in carried_figures(result)):
        print(CARRY_OVER)


def _table(result: Result) -> tuple[str, str, str, tuple[float, ...]]:
    evaluation = result.evaluation
    threat = evaluation.threat_model
    return evaluation.dataset.name, evaluation.dataset.split, threat.norm, threat.epsilons


def _row(result: Result) -> list[str]:
    evaluation, figures = result.evaluation, carried_figures(result)
    own = evaluation.model.arguments.get("horizon")  # of a model that integrates by itself
    at = evaluation.horizon if isinstance(own, bool) or not isinstance(own, int | float) else own
    horizon = "" if at is None else f"{at:g}"
    shares = [figures[0].clean, *(one.robust for one in figures)]
    seed = "" if evaluation.model.train_seed is None else str(evaluation.model.train_seed)
    names = [evaluation.model.name, horizon, seed, evaluation.attack.name]
    return [*names, str(evaluation.dataset.n), *map(_share, shares)]


def _share(share: Figure) -> str:
    return f"{100 * share.value:.1f} ±{50 * (share.high - share.low):.1f}"
