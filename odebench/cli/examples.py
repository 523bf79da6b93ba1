"""`odebench examples`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from odebench.cli.options import DataDir, Device, Trust
from odebench.cli.root import app
from odebench.errors import OdebenchError, ResultError, UsageError
from odebench.io.folders import LEADERBOARD


@app.command(epilog="Examples:\n\nodebench examples\n\nodebench examples results --force\n\nodebench examples --trust")
def examples(
    results: Annotated[
        list[Path] | None, typer.Argument(help="Folders of results. Default: ./leaderboard/results.")
    ] = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    trust: Trust = False,
    force: Annotated[bool, typer.Option("--force", help="Make existing examples again.")] = False,
) -> None:
    """Write up to six pairs of images per model, clean and attacked, beside its results, for the page.

    Attacks the first chunk of one result per model again. Examples of deleted results are removed.
    """
    from odebench.leaderboard import example_images
    from odebench.leaderboard.build import build_tables
    from odebench.leaderboard.read import read_results

    folders = results or [LEADERBOARD.results]
    stored, problems = read_results(folders)
    tables, contradictions = build_tables(stored)
    shown = example_images.results_to_show(tables)
    wanted = [example_images.examples_folder(item) for item in shown]
    existing, _ = example_images.read_examples(folders, shown)
    there = [] if force else [examples.folder for examples in existing]
    errors: list[OdebenchError] = [*problems, *contradictions]
    for item, folder in zip(shown, wanted, strict=True):
        if folder in there:
            print(f"{folder} (there already)")
            continue
        try:
            print(_make(item.path, data_dir=data_dir, device=device, trust=trust))
        except OdebenchError as error:
            errors.append(error)
    for path in example_images.example_files(folders):
        if path.parent not in wanted and example_images.remove_examples(path.parent):
            print(f"{path.parent} (taken away)")
    for problem in errors:
        print(f"odebench: {problem}", file=sys.stderr)
    if errors:
        raise typer.Exit(1)


def _make(path: Path, *, data_dir: Path | None, device: str, trust: bool) -> Path:
    import torch

    from odebench.cli.console import ScreenProgress
    from odebench.cli.trust import trusted_model
    from odebench.dataset import describe_dataset, load_dataset
    from odebench.evaluation.environment import usable_device
    from odebench.leaderboard.union import StoredResult
    from odebench.result.file import read_result
    from odebench.sweep.example_images import make_examples

    progress = ScreenProgress()
    item = StoredResult(path, read_result(path))
    try:
        model = trusted_model(item.result.evaluation.model.name, trust=trust)
    except UsageError as error:
        raise ResultError(f"{path} cannot be run again here: {error}") from error
    name = item.result.evaluation.dataset.name
    described = describe_dataset(name, data_dir=data_dir, progress=progress)
    data = load_dataset(name, data_dir=data_dir, progress=progress)
    torch.set_num_threads(item.result.found.threads)
    return make_examples(item, data, described, model=model, device=usable_device(device), progress=progress)
