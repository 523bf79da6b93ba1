"""`odebench compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odebench.cli.leaderboard import end_with, naming, selected
from odebench.cli.options import AsJson, complete_dataset, complete_model
from odebench.cli.results import folders_of_models, known_folders, say_folders
from odebench.cli.root import app
from odebench.errors import UsageError, nearest
from odebench.io.folders import LEADERBOARD

if TYPE_CHECKING:
    from odebench.errors import ResultError
    from odebench.leaderboard.selection import Selection


@app.command(
    epilog="Examples:\n\nodebench compare kd-ode ode -d digits\n\n"
    "odebench compare main~5 main\n\nodebench compare runs/a runs/b\n\n"
    "odebench compare results/ode/a.json results/kd-ode/b.json --json"
)
def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A model (`odebench models` lists them), a result file, a folder of results, or a git commit.",
            autocompletion=complete_model,
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(metavar="B", help="What to compare it with, of the same kind.", autocompletion=complete_model),
    ],
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", "-d", help="Models: these data sets alone.", autocompletion=complete_dataset),
    ] = None,
    norm: Annotated[list[str] | None, typer.Option("--norm", help="Models: these norms alone: linf, l2.")] = None,
    epsilon: Annotated[
        str | None, typer.Option(help="Models: the radius, such as 0.1 or 8/255. Default: the middle one of each norm.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            help="Models: the folder of their results. Default: the published ones, ./results for a model without any.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two models on the same images: which is better, by how much. Or two results, folders or commits.

    For a commit, its leaderboard/results is read. A file or folder of this name comes before a model.
    """
    from odebench.io.files import write_output

    if _are_models(a, b, results):
        selection = selected(dataset, norm, epsilons=None if epsilon is None else [epsilon])
        models = [name.partition(" ")[0] for name in (a, b)]
        folders = folders_of_models(*models) if results is None else [results]
        if results is None:
            say_folders(*dict.fromkeys(one.parent if one.name in models else one for one in folders))
        text, problems = _compared_models((a, b), folders, selection, as_json=as_json)
        write_output(text, None)
        end_with(problems)
        return
    if dataset or norm or epsilon is not None or results is not None:
        raise UsageError(
            "--dataset, --norm, --epsilon and --results go with two models, such as odebench compare kd-ode ode"
        )
    from odebench.analysis.comparison import difference
    from odebench.leaderboard.read import results_of
    from odebench.render.comparison import difference_json, difference_text

    _check_names(a, b)
    first, problems = results_of(a, folder=LEADERBOARD.results)
    second, more = results_of(b, folder=LEADERBOARD.results)
    found = difference(first, second)
    write_output(difference_json(found) if as_json else difference_text(found, a, b), None)
    end_with([*problems, *more])


def _are_models(a: str, b: str, results: Path | None) -> bool:
    """Whether one of two names is that of a model, and none that of a file or folder."""
    from odebench.model.registry import MODELS
    from odebench.submission.submitted_model import entry_names

    names = [name.partition(" ")[0] for name in (a, b)]
    if any(Path(name).exists() for name in (a, b, *names)):
        return False
    known = {*MODELS.entries(), *entry_names()}
    folders = known_folders() if results is None else [results]
    return any(name in known or (name and any((folder / name).is_dir() for folder in folders)) for name in names)


def _check_names(*names: str) -> None:
    """Raises UsageError for a name of nothing that is like a model's."""
    from odebench.io.git import commit_of
    from odebench.model.registry import MODELS
    from odebench.submission.submitted_model import entry_names

    for name in names:
        if not Path(name).exists() and commit_of(name) is None:
            known = {*MODELS.entries(), *entry_names()}
            if name in known:
                raise UsageError(f"{name} is a model: compare it with a model, or files and folders of results")
            near = nearest(name, known, cutoff=0.7)
            if near:
                raise UsageError(f"no model, file, folder or commit is called {name!r};{near}")


def _compared_models(
    names: tuple[str, str], folders: Sequence[Path], selection: Selection, *, as_json: bool
) -> tuple[str, list[ResultError]]:
    """Two models of a folder of results, as text or JSON, and the problems of the results."""
    from odebench.analysis.model_comparison import compare_models
    from odebench.leaderboard.build import build_tables
    from odebench.leaderboard.read import read_results
    from odebench.render.model_comparison import model_comparison_json, model_comparison_text

    read, problems = read_results(folders)
    with naming(problems):
        tables, contradictions = build_tables(selection.results(read))
        found = compare_models(selection.tables(tables), *names)
    text = model_comparison_json(found, *names, folders) if as_json else model_comparison_text(found, *names)
    return text, [*problems, *contradictions]
