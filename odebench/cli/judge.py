"""`odebench judge`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from odebench.cli import options
from odebench.cli.root import app
from odebench.errors import UsageError


@app.command(epilog="Example:\n\nodebench judge --model kd-ode mine.safetensors --author 'A. Reviewer'")
def judge(
    model: options.ReferenceName,
    file: Annotated[Path, typer.Argument(help="Candidates (safetensors), such as run --save-candidates writes.")],
    author: Annotated[
        str,
        typer.Option(
            "--author", "--credit", help="Who made the candidates, to be credited. Default: what the file says."
        ),
    ] = "",
    address: Annotated[
        str | None, typer.Option("--address", help="Address of the file (https), so that others can judge it again.")
    ] = None,
    horizon: options.Horizon = None,
    n: options.Images = None,
    offset: options.Offset = 0,
    seed: options.Seed = 0,
    train_horizon: options.TrainHorizon = None,
    method: options.Method = None,
    step: options.StepLength = None,
    tolerance: options.Tolerance = None,
    backend: options.BackendName = None,
    max_steps: options.MaxSteps = None,
    changes: options.Changes = None,
    weights: options.Weights = None,
    trust: options.Trust = False,
    data_dir: options.DataDir = None,
    device: options.Device = "cpu",
    results: options.Results = Path("results"),
    force: Annotated[bool, typer.Option("--force", help="Judge again even if the result exists.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Judge candidates made elsewhere: a stronger attack lowers a figure, whoever wrote it."""
    from odebench.attack.candidate_file import read_candidates
    from odebench.cli.console import ScreenProgress, print_result
    from odebench.cli.evaluation import Evaluator
    from odebench.evaluation.plan import EvaluationRequest, Slice
    from odebench.io.files import sha256_file
    from odebench.leaderboard.credit import checked_name
    from odebench.result.schema import ADDRESS_PATTERN

    if address is not None and not re.fullmatch(ADDRESS_PATTERN, address):
        raise UsageError(f"--address is not an https address of at most 2,000 characters: {address!r}")
    found = read_candidates(file)
    credit = checked_name(author or found.author or found.source)
    evaluator = Evaluator(found.dataset, data_dir, device, results, force, ScreenProgress())
    described = evaluator.describe()
    request = EvaluationRequest(
        evaluator.model(model, weights, trust=trust),
        "candidates",
        images=Slice(split="validation" if found.split == "validation" else "test", n=n, offset=offset),
        horizon=options.number(horizon, "horizon"),
        train_horizon=options.number(train_horizon, "train horizon"),
        solver=options.solver(method, step, tolerance, backend, max_steps),
        norm=found.norm,
        epsilons=found.radii,
        train_seed=seed,
        changes=options.settings(changes),
        parameters={"file_sha256": sha256_file(file), "credit": credit},
    )
    evaluated = evaluator.run(request, described, candidates=found, address=address)
    if address is None:
        evaluator.progress.say("without --address nobody can judge it again: leaderboards do not count it")
    evaluated.show(print_result, as_json=as_json, again="judges it again")
