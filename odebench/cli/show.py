"""`odebench show`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odebench.cli.root import app
from odebench.io.text import hanging, shell_lines
from odebench.leaderboard.model_card import AGAIN

if TYPE_CHECKING:
    from odebench.leaderboard.table import Cell
    from odebench.result.schema import Result


@app.command(epilog="Example:\n\nodebench show results/ode/digits-pgd-linf-0123456789abcdef.json")
def show(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="A result file, such as `run` names at its end.")],
) -> None:
    """Explain one result: figures, letters, checks, flags and what to do, cost, the command that repeats it, what is
    published of the same model."""
    from odebench.cli.console import print_checks, print_result
    from odebench.errors import ResultError
    from odebench.result.file import read_result, result_files

    if result.is_dir():
        first = next(iter(result_files(result)), None)
        raise ResultError(f"{result} is a folder; name one file" + ("" if first is None else f", such as {first}"))
    found = read_result(result)
    print_result(found)
    _letters(found)
    if found.checks:
        print()
        print_checks(found)
    _cost(found)
    _again(found)
    _published(found, result)


def _letters(result: Result) -> None:
    from odebench.cli.console import print_table
    from odebench.leaderboard.figures import carried_figures
    from odebench.protocol.spec import radius
    from odebench.result.outcome import MEANINGS

    print("\nletters, one per image, in the order of the file:")
    rows = [
        [radius(item.epsilon), *(str(item.outcomes.count(letter)) for letter in MEANINGS)] for item in result.epsilons
    ]
    print_table(["epsilon", *MEANINGS], rows, right=tuple(range(len(MEANINGS) + 1)))
    for letter, meaning in MEANINGS.items():
        print(hanging(f"{letter}: {meaning}"))
    for one in carried_figures(result):
        if one.carried:
            said = f"the table also counts as fooled {one.carried} of r at {radius(one.epsilon)}"
            print(hanging(f"{said}, which fell at a smaller epsilon"))
    for item in result.epsilons:
        # the name of a stage ends in the epsilon that it attacked, where successes carry over to larger ones
        stages = {code: name.partition(" at ")[0] for code, name in item.felled_by.legend.items()}
        if len({*stages.values()}) > 1:
            succeeded = Counter(stages[code] for code in item.felled_by.codes(len(item.outcomes)) if code in stages)
            said = ", ".join(f"{name}: {count}" for name, count in succeeded.most_common()) or "nothing"
            print(hanging(f"first to succeed at {radius(item.epsilon)}, in images: {said}"))


def _cost(result: Result) -> None:
    from odebench.cli.console import print_table

    cost, found = result.cost, result.found
    passes = f"{cost.forward:.4g} forward and {cost.backward:.4g} backward passes per image"
    print()
    print(hanging(f"cost: {passes}, {cost.seconds:.3g} s on {found.device}, threads: {found.threads}"))
    if len(cost.stages) > 1:
        rows = [
            [stage.name, f"{stage.forward:.4g}", f"{stage.backward:.4g}", f"{stage.seconds:.3g}"]
            for stage in cost.stages
        ]
        print_table(["stage", "forward", "backward", "seconds"], rows, right=(1, 2, 3))
    for reason in result.doubt:
        print(hanging(f"doubt: {reason}"))
    versions = found.versions
    made_with = f"odebench {versions.odebench}, torch {versions.torch}, Python {versions.python}"
    print(hanging(f"written {result.created} by {made_with}"))
    print(f"weights: sha256 {found.weights_sha256}")


def _again(result: Result) -> None:
    from odebench.errors import OdebenchError
    from odebench.submission.run_command import FILE, run_command

    try:
        words = run_command(result)
    except OdebenchError as error:
        print("\n" + hanging(f"no command repeats it: {error}"))
        return
    print("\n" + hanging(f"the command that repeats it ({AGAIN}):"))
    print(shell_lines(words))
    if FILE in words:
        own = f"; {FILE}.py is the file of the class" if any(word.startswith(f"{FILE}.py:") for word in words) else ""
        print(f"{FILE} is the weights file of the sha256 above{own}")


def _published(result: Result, path: Path) -> None:
    from odebench.io.folders import published_folder
    from odebench.protocol.spec import radius
    from odebench.result.file import read_result, result_path

    folder = published_folder()
    same = None if folder is None else result_path(folder.results, result.evaluation)
    if folder is None or same is None:
        return
    print()
    if same.is_file() and same.resolve() != path.resolve():
        other = read_result(same)
        pairs = [
            (mine, theirs)
            for ours, published in zip(result.epsilons, other.epsilons, strict=True)
            for mine, theirs in zip(ours.outcomes, published.outcomes, strict=True)
        ]
        differ = sum(mine != theirs for mine, theirs in pairs)
        print(hanging(f"published, the same evaluation: {same}; {differ} of {len(pairs)} letters differ"))
    for epsilon, cell in _cells(result, folder.results / result.evaluation.model.name).items():
        seeds = f"{cell.seeds} train seed{'s' * (cell.seeds > 1)}"
        rank = "" if cell.ranked else ", unranked"
        accuracies = f"clean {100 * cell.clean_accuracy.value:.1f}%, robust {100 * cell.robust_accuracy.value:.1f}%"
        under = f"under {', '.join(cell.attacks)} ({cell.n} images, {seeds}{rank})"
        print(hanging(f"published at {radius(epsilon)}: {accuracies} {under}"))


def _cells(result: Result, folder: Path) -> dict[float, Cell]:
    """The published cells of the same model, horizon, training horizon, data set and norm, by epsilon."""
    from odebench.leaderboard.build import build_tables
    from odebench.leaderboard.read import read_results

    if not folder.is_dir():
        return {}
    evaluation = result.evaluation
    tables, _ = build_tables(read_results([folder])[0])
    found = {}
    for table in tables:
        data = (table.dataset, table.split, table.norm)
        if data == (evaluation.dataset.name, evaluation.dataset.split, evaluation.threat_model.norm):
            for row in table.rows:
                same = (row.model, row.arguments, row.solver)
                if same == (evaluation.model.name, evaluation.model.other_arguments, evaluation.solver):
                    cell = row.cells.get(evaluation.horizon)
                    alike = cell is not None and cell.train_horizon == evaluation.train_horizon
                    if cell is not None and alike and table.epsilon in evaluation.threat_model.epsilons:
                        found[table.epsilon] = cell
    return found
