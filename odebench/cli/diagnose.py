"""`odebench diagnose`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from odebench.cli.options import (
    AsJson,
    AttackParameters,
    AttackSeed,
    BackendName,
    Changes,
    ContestantName,
    DataDir,
    DatasetName,
    Device,
    Epsilon,
    Force,
    Horizon,
    MaxSteps,
    Method,
    NormName,
    Offset,
    Results,
    Seed,
    SourceNames,
    SplitName,
    StepLength,
    Tolerance,
    TrainHorizon,
    Trust,
    Weights,
    number,
    radii_of,
    settings,
    solver,
    split_name,
)
from odebench.cli.root import app
from odebench.cli.trust import trusted_contestant
from odebench.errors import UsageError

DEFAULT_IMAGES = 200


@app.command(
    epilog="Examples:\n\nodebench diagnose --model kd-ode\n\nodebench diagnose -m ode --full --chart ode.svg\n\n"
    "odebench diagnose -m ode --solver dopri5 --tolerance 0.1\n\nodebench diagnose -m ode --parameter steps=5"
)
def diagnose(
    model: ContestantName,
    dataset: DatasetName = "digits",
    full: Annotated[bool, typer.Option("--full", help="All checks; the quick eleven by default.")] = False,
    chart: Annotated[Path | None, typer.Option(help="Draw the curves into this SVG file (extra: chart).")] = None,
    horizon: Horizon = None,
    epsilon: Epsilon = None,
    norm: NormName = None,
    n: Annotated[int | None, typer.Option("-n", help="How many images, in whole chunks. Default 200.")] = None,
    offset: Offset = 0,
    split: SplitName = "test",
    seed: Seed = 0,
    attack_seed: AttackSeed = 0,
    train_horizon: TrainHorizon = None,
    method: Method = None,
    step: StepLength = None,
    tolerance: Tolerance = None,
    backend: BackendName = None,
    max_steps: MaxSteps = None,
    parameter: AttackParameters = None,
    changes: Changes = None,
    weights: Weights = None,
    trust: Trust = False,
    source: SourceNames = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    results: Results = Path("results"),
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Check whether a model's figures may be believed: every check, its evidence, and what to do."""
    from odebench.attack.builtin import DIAGNOSIS, QUICK_DIAGNOSIS
    from odebench.cli.console import ScreenProgress, print_diagnosis, write_text
    from odebench.dataset import describe_dataset, load_dataset
    from odebench.evaluation.plan import Slice, plan, threat_model
    from odebench.io.remote_weights import weights_file
    from odebench.render.diagnosis import check_charts, curves, diagnosis_svg, nfe_bars

    attack = (DIAGNOSIS if full else QUICK_DIAGNOSIS).name
    progress = ScreenProgress()
    trusted_contestant(model, trust=trust)
    radii = radii_of(epsilon, attack, norm)
    evaluated_with = solver(method, step, tolerance, backend, max_steps)
    evaluated_at, trained_at = number(horizon, "horizon"), number(train_horizon, "train horizon")
    if source and not full:
        raise UsageError("a source takes part in the transfer check, which is one of --full")
    if chart is not None:
        check_charts(chart)
    described = describe_dataset(dataset, data_dir=data_dir, progress=progress)
    threat_model(attack, described, norm=norm, epsilons=radii)
    images = Slice(split=split_name(split), n=n, offset=offset)
    recipe_changes, parameters = settings(changes), settings(parameter)
    weights_path = None if weights is None else weights_file(weights, progress=progress)
    contestant = trusted_contestant(model, weights=weights_path, trust=True)

    from odebench.evaluation.evaluate import data_split
    from odebench.evaluation.evaluate import run as run_plan

    data = load_dataset(dataset, data_dir=data_dir, progress=progress)
    total = len(data_split(data, images.split))
    if n is None and 0 <= offset < total:
        images = replace(images, n=min(DEFAULT_IMAGES, total - offset))
    planned = plan(
        contestant,
        attack,
        described,
        total=total,
        images=images,
        horizon=evaluated_at,
        train_horizon=trained_at,
        solver=evaluated_with,
        norm=norm,
        epsilons=radii,
        train_seed=seed,
        attack_seed=attack_seed,
        changes=recipe_changes,
        parameters=parameters,
        sources=source,
    )
    result, path, new = run_plan(planned, data, results=results, force=force, device=device, progress=progress)
    if chart is not None:
        from odebench.io.files import write_atomically

        title = f"{contestant.name} on {dataset}, {attack}"
        write_atomically(chart, diagnosis_svg(title, curves(result), nfe_bars(result)).encode())
    if as_json:
        from odebench.result.file import result_json

        write_text(result_json(result))
        return
    print_diagnosis(result)
    if chart is not None:
        print(f"chart: {chart}")
    print(f"result: {path}" if new else f"result: {path} (there already; --force runs it again)")
