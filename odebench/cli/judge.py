"""`odebench judge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from odebench.cli.option import (
    AsJson,
    Changes,
    DataDir,
    Device,
    Horizon,
    ModelName,
    Results,
    Seed,
    number,
    settings,
    solver,
)
from odebench.cli.root import app


@app.command(epilog="Example:\n\nodebench judge --model kd-ode mine.safetensors --credit 'A. Reviewer'")
def judge(
    model: ModelName,
    file: Annotated[Path, typer.Argument(help="Candidates (safetensors), such as run --save-candidates writes.")],
    credit: Annotated[str, typer.Option(help="Who made the candidates; default: what the file says.")] = "",
    horizon: Horizon = None,
    n: Annotated[int | None, typer.Option("-n", help="How many images, in whole chunks. Default 500.")] = None,
    offset: Annotated[int, typer.Option(help="The first image, in the fixed order.")] = 0,
    seed: Seed = 0,
    train_horizon: Annotated[str | None, typer.Option(help="T of training, if not --horizon.")] = None,
    method: Annotated[str | None, typer.Option("--solver", help="Evaluate with rk4, dopri5 ...")] = None,
    step: Annotated[str | None, typer.Option(help="Step of a fixed-step solver. Default 0.25.")] = None,
    tolerance: Annotated[str | None, typer.Option(help="rtol and atol of an adaptive solver. Default 1e-3.")] = None,
    backend: Annotated[str | None, typer.Option(help="torchode or torchdiffeq.")] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Step limit of an adaptive solver. Default 1000.")
    ] = None,
    changes: Changes = None,
    weights: Annotated[Path | None, typer.Option(help="Weights (safetensors) instead of training.")] = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    results: Results = Path("results"),
    force: Annotated[bool, typer.Option("--force", help="Judge again although the result exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Judge candidates made elsewhere: a better attack brings a figure down, whoever wrote it."""
    from odebench.candidate import read_candidates
    from odebench.cli.screen import ScreenProgress, print_result, write_text
    from odebench.dataset import describe_dataset, load_dataset
    from odebench.evaluation import data_split
    from odebench.evaluation import run as run_plan
    from odebench.file import sha256_file
    from odebench.plan import Slice, plan
    from odebench.result import result_json

    progress = ScreenProgress()
    found = read_candidates(file)
    described = describe_dataset(found.dataset, data_dir=data_dir, progress=progress)
    data = load_dataset(found.dataset, data_dir=data_dir, progress=progress)
    images = Slice(split="validation" if found.split == "validation" else "test", n=n, offset=offset)
    planned = plan(
        model,
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
        parameters={"file_sha256": sha256_file(file), "credit": credit or found.source},
        weights=weights,
    )
    result, path, new = run_plan(
        planned, data, results=results, force=force, candidates=found, device=device, progress=progress
    )
    if as_json:
        write_text(result_json(result))
        return
    print_result(result)
    print(f"result: {path}" if new else f"result: {path} (there already; --force judges it again)")
