"""`odebench run` and `odebench train`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from odebench.cli import options
from odebench.cli.root import app
from odebench.cli.trust import trusted_model
from odebench.errors import UsageError


@app.command(
    epilog="Examples:\n\nodebench run --model kd-ode --attack pgd\n\nodebench run -m resnet -a cw\n\n"
    "odebench run -m ode -a pgd --horizon 2 --epsilon 2/255,8/255 -n 200\n\n"
    "odebench run -m ode -a pgd --solver dopri5 --tolerance 1e-3\n\n"
    "odebench run -m kd-ode -a worst-case -n 200 --parameter effort=standard-2\n\n"
    "odebench run -m my-ode -a pgd --trust --results leaderboard/results\n\n"
    "odebench run -m my_net.py:Net -a pgd --weights net.safetensors --trust\n\n"
    "odebench run -m ode,kd-ode -a pgd,cw --horizon 0.5,1,2 --seeds 0-2"
)
def run(
    model: options.ReferenceNames,
    attack: options.AttackNames,
    dataset: options.DatasetNames = None,
    horizon: options.Horizons = None,
    epsilon: options.Epsilon = None,
    norm: options.NormName = None,
    n: options.Images = None,
    offset: options.Offset = 0,
    split: options.SplitName = "test",
    seed: options.Seeds = None,
    attack_seed: options.AttackSeed = 0,
    train_horizon: options.TrainHorizon = None,
    method: options.Method = None,
    step: options.StepLength = None,
    tolerance: options.Tolerance = None,
    backend: options.BackendName = None,
    max_steps: options.MaxSteps = None,
    parameter: options.AttackParameters = None,
    changes: options.Changes = None,
    weights: options.Weights = None,
    trust: options.Trust = False,
    source: options.SourceNames = None,
    surrogate: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD:STEP",
            help="A cheaper solver of the same weights attacks first: rk4:0.5.",
            rich_help_panel=options.ATTACK_PANEL,
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help="fp32 or bf16, of the attack; the verdict is fp32.", rich_help_panel=options.ATTACK_PANEL),
    ] = "fp32",
    chunk: Annotated[
        int | None,
        typer.Option(
            help="Images that an attack sees at once; part of the run key. Default 100, or what divides -n.",
            rich_help_panel=options.ATTACK_PANEL,
        ),
    ] = None,
    data_dir: options.DataDir = None,
    device: options.Device = "cpu",
    results: options.Results = Path("results"),
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes, where there are several evaluations. Default: cores.",
            rich_help_panel=options.MORE_PANEL,
        ),
    ] = None,
    save_candidates: Annotated[
        Path | None,
        typer.Option(
            help="Save the last candidates judged (safetensors), for `odebench judge`.",
            rich_help_panel=options.MORE_PANEL,
        ),
    ] = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Train or load a model, attack it, judge every image, and write the result.

    Several models, attacks, horizons, seeds or data sets make a grid: every combination, in parallel, resumable.
    """
    from odebench.cli.console import ScreenProgress, print_result
    from odebench.cli.evaluation import Evaluator
    from odebench.evaluation.plan import EvaluationRequest, Slice

    # Everything that can be wrong with the options is reported before anything heavy is imported or trained.
    models, attacks = options.listed(model, "model"), options.listed(attack, "attack")
    datasets, horizons = options.listed(dataset or ["digits"], "data set"), options.horizons(horizon)
    seeds = options.seeds(seed)
    options.distinct(source or (), "source")
    progress = ScreenProgress()
    evaluators = [Evaluator(name, data_dir, device, results, force, progress) for name in datasets]
    for name in models:
        trusted_model(name, weights=None if weights is None else Path(weights), trust=trust)
    request = EvaluationRequest(
        models[0],
        attacks[0],
        norm=norm,
        epsilons=options.radii_of(epsilon, attacks[0], norm),
        solver=options.solver(method, step, tolerance, backend, max_steps),
        horizon=horizons[0],
        train_horizon=options.number(train_horizon, "train horizon"),
        train_seed=seeds[0],
        attack_seed=attack_seed,
        sources=source,
    )
    described = evaluators[0].checked(request)
    request = replace(
        request,
        images=Slice(split=options.one_of("--split", split, "test", "validation"), n=n, offset=offset, chunk=chunk),
        changes=options.settings(changes),
        parameters=options.settings(parameter),
        precision=options.one_of("--precision", precision, "fp32", "bf16"),
        surrogate=None if surrogate is None else options.coarse_solver(surrogate),
    )
    if len(models) == len(attacks) == len(datasets) == len(horizons) == len(seeds) == 1:
        if workers is not None:
            raise UsageError("--workers is for several evaluations; this is one")
        request = replace(request, model=evaluators[0].model(models[0], weights, trust=True))
        evaluated = evaluators[0].run(request, described, save_candidates=save_candidates)
        evaluated.show(print_result, as_json=as_json)
        return
    if save_candidates is not None:
        raise UsageError("--save-candidates is one file: give one model, attack, data set, horizon and seed")
    if weights is not None and not len(models) == len(datasets) == len(seeds) == 1:
        raise UsageError("--weights are those of one model: give one model, data set and seed")
    from odebench.cli.run_grid import Combinations, grids_of, run_grid

    references = [evaluators[0].model(name, weights, trust=True) for name in models]
    combinations = Combinations(references, attacks, horizons, seeds, epsilon)
    run_grid(grids_of(combinations, request, evaluators), workers=workers, as_json=as_json)


@app.command(
    epilog="Examples:\n\nodebench train --model kd-ode --horizon 2\n\nodebench train -m resnet -d fashion-mnist"
)
def train(
    model: options.ModelName,
    dataset: options.DatasetName = "digits",
    horizon: options.Horizon = None,
    seed: options.Seed = 0,
    changes: options.Changes = None,
    data_dir: options.DataDir = None,
    device: options.Device = "cpu",
    as_json: options.AsJson = False,
) -> None:
    """Train a model, and its teacher first: what `run` does on first use."""
    from odebench.cli.console import ScreenProgress, write_text
    from odebench.dataset import describe_dataset, load_dataset
    from odebench.model.definition import load_definition

    progress = ScreenProgress()
    definition, trained_at = load_definition(model), options.number(horizon, "horizon")
    described = describe_dataset(dataset, data_dir=data_dir, progress=progress)
    recipe = definition.recipe(described, horizon=trained_at, train_seed=seed, changes=options.settings(changes))
    from odebench.evaluation.environment import one_thread_if_small, usable_device
    from odebench.model.training import find_or_train

    one_thread_if_small(described.image_shape)
    data = load_dataset(dataset, data_dir=data_dir, progress=progress)
    trained = find_or_train(recipe, data, device=usable_device(device), progress=progress)
    if as_json:
        from odebench.io.canonical_json import canonical_json

        write_text(canonical_json({"path": str(trained.path), "sha256": trained.weights_sha256}))
    else:
        print(f"weights: {trained.path}\nsha256: {trained.weights_sha256}")
