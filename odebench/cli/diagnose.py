"""`odebench diagnose`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odebench.cli import options
from odebench.cli.root import app
from odebench.cli.trust import trusted_model
from odebench.errors import UsageError

if TYPE_CHECKING:
    from odebench.result.schema import Result

DEFAULT_IMAGES = 200


@app.command(
    epilog="Examples:\n\nodebench diagnose --model kd-ode\n\nodebench diagnose -m ode --full --chart ode.svg\n\n"
    "odebench diagnose -m ode --solver dopri5 --tolerance 0.1\n\nodebench diagnose -m ode --parameter steps=5"
)
def diagnose(
    model: options.ReferenceName,
    dataset: options.DatasetName = "digits",
    full: Annotated[bool, typer.Option("--full", help="All checks; the quick fourteen by default.")] = False,
    chart: Annotated[Path | None, typer.Option(help="Draw the curves into this SVG file.")] = None,
    horizon: options.Horizon = None,
    epsilon: options.Epsilon = None,
    norm: options.NormName = None,
    n: Annotated[int | None, typer.Option("-n", help="How many images. Default 200.")] = None,
    offset: options.Offset = 0,
    split: options.SplitName = "test",
    seed: options.Seed = 0,
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
    data_dir: options.DataDir = None,
    device: options.Device = "cpu",
    results: options.Results = Path("results"),
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Check whether a model's figures can be trusted: every check, its evidence, and what to do."""
    from odebench.attack.builtin import DIAGNOSIS, QUICK_DIAGNOSIS
    from odebench.cli.console import ScreenProgress, print_diagnosis
    from odebench.cli.evaluation import Evaluator
    from odebench.evaluation.plan import EvaluationRequest, Slice
    from odebench.render.diagnosis import check_charts, curves, diagnosis_svg, nfe_bars

    attack = (DIAGNOSIS if full else QUICK_DIAGNOSIS).name
    evaluator = Evaluator(dataset, data_dir, device, results, force, ScreenProgress())
    name = trusted_model(model, trust=trust).name
    request = EvaluationRequest(
        model,
        attack,
        norm=norm,
        epsilons=options.radii_of(epsilon, attack, norm),
        solver=options.solver(method, step, tolerance, backend, max_steps),
        horizon=options.number(horizon, "horizon"),
        train_horizon=options.number(train_horizon, "train horizon"),
        train_seed=seed,
        attack_seed=attack_seed,
        sources=source,
    )
    if source and not full:
        raise UsageError("a source takes part in the transfer check, which is one of --full")
    if chart is not None:
        check_charts(chart)
    described = evaluator.checked(request)
    request = replace(
        request,
        images=Slice(split=options.one_of("--split", split, "test", "validation"), n=n, offset=offset),
        changes=options.settings(changes),
        parameters=options.settings(parameter),
        model=evaluator.model(model, weights, trust=True),
    )
    evaluated = evaluator.run(request, described, default_n=DEFAULT_IMAGES)
    if chart is not None:
        from odebench.io.files import write_atomically

        svg = diagnosis_svg(f"{name} on {dataset}, {attack}", curves(evaluated.result), nfe_bars(evaluated.result))
        write_atomically(chart, svg.encode())

    def show(result: Result) -> None:
        print_diagnosis(result)
        if chart is not None:
            print(f"chart: {chart}")

    evaluated.show(show, as_json=as_json)
