"""`odebench judge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from odebench.cli.options import (
    AsJson,
    BackendName,
    Changes,
    ContestantName,
    DataDir,
    Device,
    Horizon,
    Images,
    MaxSteps,
    Method,
    Offset,
    Results,
    Seed,
    StepLength,
    Tolerance,
    TrainHorizon,
    Trust,
    Weights,
    number,
    settings,
    solver,
)
from odebench.cli.root import app
from odebench.cli.trust import trusted_model


@app.command(epilog="Example:\n\nodebench judge --model kd-ode mine.safetensors --author 'A. Reviewer'")
def judge(
    model: ContestantName,
    file: Annotated[Path, typer.Argument(help="Candidates (safetensors), such as run --save-candidates writes.")],
    author: Annotated[
        str,
        typer.Option(
            "--author", "--credit", help="Who made the candidates, to be credited. Default: what the file says."
        ),
    ] = "",
    horizon: Horizon = None,
    n: Images = None,
    offset: Offset = 0,
    seed: Seed = 0,
    train_horizon: TrainHorizon = None,
    method: Method = None,
    step: StepLength = None,
    tolerance: Tolerance = None,
    backend: BackendName = None,
    max_steps: MaxSteps = None,
    changes: Changes = None,
    weights: Weights = None,
    trust: Trust = False,
    data_dir: DataDir = None,
    device: Device = "cpu",
    results: Results = Path("results"),
    force: Annotated[bool, typer.Option("--force", help="Judge again although the result exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Judge candidates made elsewhere: a better attack brings a figure down, whoever wrote it."""
    from odebench.attack.candidate_file import read_candidates
    from odebench.cli.console import ScreenProgress, print_result, write_text
    from odebench.dataset import describe_dataset, load_dataset
    from odebench.evaluation.evaluate import data_split
    from odebench.evaluation.evaluate import run as run_plan
    from odebench.evaluation.plan import Slice, plan
    from odebench.io.files import sha256_file
    from odebench.io.remote_weights import weights_file
    from odebench.leaderboard.credit import checked_name
    from odebench.result.file import result_json

    progress = ScreenProgress()
    found = read_candidates(file)
    credit = checked_name(author or found.author or found.source)
    described = describe_dataset(found.dataset, data_dir=data_dir, progress=progress)
    weights_path = None if weights is None else weights_file(weights, progress=progress)
    contestant = trusted_model(model, weights=weights_path, trust=trust)
    data = load_dataset(found.dataset, data_dir=data_dir, progress=progress)
    images = Slice(split="validation" if found.split == "validation" else "test", n=n, offset=offset)
    planned = plan(
        contestant,
        "candidates",
        described,
        total=len(data_split(data, images.split)),
        images=images,
        horizon=number(horizon, "horizon"),
        train_horizon=number(train_horizon, "train horizon"),
        solver=solver(method, step, tolerance, backend, max_steps),
        norm=found.norm,
        epsilons=found.radii,
        train_seed=seed,
        changes=settings(changes),
        parameters={"file_sha256": sha256_file(file), "credit": credit},
    )
    result, path, new = run_plan(
        planned, data, results=results, force=force, candidates=found, device=device, progress=progress
    )
    if as_json:
        write_text(result_json(result))
        return
    print_result(result)
    print(f"result: {path}" if new else f"result: {path} (there already; --force judges it again)")
