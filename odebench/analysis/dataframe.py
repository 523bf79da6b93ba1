"""Results as a table for analysis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from odebench.errors import UsageError
from odebench.io.canonical_json import canonical_json
from odebench.io.folders import published_folder
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.grouping import group
from odebench.leaderboard.rank import ranks
from odebench.leaderboard.read import read_results
from odebench.leaderboard.table import Table
from odebench.leaderboard.union import StoredResult
from odebench.protocol.spec import middle, radius
from odebench.result.file import read_result
from odebench.result.schema import EpsilonResult, figure_columns

if TYPE_CHECKING:
    import pandas


def load_results(path: Path | str) -> pandas.DataFrame:
    """A pandas DataFrame of a result file or of all results below a folder: one row per evaluation and epsilon.

    Accuracies are in [0, 1]; a model's arguments without its train seed are JSON; flags are separated by commas; what
    is null in a result is missing. `ranked` says which rows are the worst case that a model is ranked by, one per train
    seed: averages over other rows mix attacks and numbers of images. `odebench.ranking` gives the figures of the ranks.
    Raises ResultError for the first file that is not a result, so that nothing is left out in silence.
    """
    import pandas

    stored = _stored(path)
    ranked = {
        (where, table.epsilon)
        for table in build_tables(stored)[0]
        for row in table.usual
        for cell in row.cells.values()
        if cell.ranked
        for where in cell.files.values()
    }
    rows = [
        _row(item, at) | {"ranked": (item.path, at.epsilon) in ranked} for item in stored for at in item.result.epsilons
    ]
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def ranking(path: Path | str | None = None, *, epsilon: float | None = None) -> pandas.DataFrame:
    """The ranked models as a pandas DataFrame: one row per data set, norm, model and horizon, the best first.

    `path` is a folder of results, by default the published ones. `epsilon` is by default the middle one of each data
    set and norm. Accuracies are in [0, 1], with 95% intervals over images and train seeds; `robust_accuracy` counts an
    image as robust where no result of the model fools it. `rank` is 1 plus the number of models that are significantly
    better in the mean over their horizons. NFE is a mean per image.

    Raises UsageError without published results, ResultError for the first problem of the results.
    """
    import pandas

    if path is None:
        folder = published_folder()
        if folder is None:
            raise UsageError("there are no published results here; name a folder, such as ranking('results')")
        path = folder.results
    tables, problems = build_tables(_stored(path))
    if problems:
        raise problems[0]
    known = sorted({table.epsilon for table in tables})
    if epsilon is not None and epsilon not in known:
        raise UsageError(f"no result is at epsilon {epsilon}; there are {', '.join(map(radius, known)) or 'none'}")
    chosen = [
        table
        for same in group(tables, lambda table: (table.dataset_sha256, table.dataset, table.split, table.norm)).values()
        for table in ([middle(same)] if epsilon is None else [one for one in same if one.epsilon == epsilon])
    ]
    return pandas.DataFrame([row for table in chosen for row in _ranked_rows(table)], columns=list(RANKING_COLUMNS))


def _ranked_rows(table: Table) -> list[dict[str, Any]]:
    found = [
        {
            "dataset": table.dataset,
            "split": table.split,
            "norm": table.norm,
            "epsilon": table.epsilon,
            "rank": rank,
            "model": row.model,
            "arguments": canonical_json(dict(row.arguments)),
            "horizon": cell.horizon,
            "train_horizon": cell.train_horizon,
            "solver": None if row.solver is None else str(row.solver),
            **figure_columns(cell, "robust_accuracy", "clean_accuracy"),
            "nfe_clean": cell.nfe_clean,
            "nfe_adversarial": cell.nfe_adversarial,
            "n": cell.n,
            "seeds": cell.seeds,
            "attacks": ", ".join(cell.attacks),
            "flags": ", ".join(cell.flags),
        }
        for number, rank in ranks(table).items()
        for row in [table.usual[number]]
        for cell in row.cells.values()
        if cell.ranked
    ]
    return sorted(found, key=lambda one: one["rank"])


def _stored(path: Path | str) -> list[StoredResult]:
    """The results of a file or below a folder. Raises ResultError for the first that is none."""
    where = Path(path)
    if where.is_file():
        return [StoredResult(where, read_result(where))]
    stored, problems = read_results([where])
    if problems:
        raise problems[0]
    return stored


RANKING_COLUMNS = (
    *("dataset", "split", "norm", "epsilon", "rank", "model", "arguments", "horizon", "train_horizon", "solver"),
    *("robust_accuracy", "robust_accuracy_low", "robust_accuracy_high"),
    *("clean_accuracy", "clean_accuracy_low", "clean_accuracy_high"),
    *("nfe_clean", "nfe_adversarial", "n", "seeds", "attacks", "flags"),
)
"""The columns of the ranking, in order."""


COLUMNS = (
    "ranked",
    *("model", "arguments", "train_seed", "train_horizon", "horizon", "solver", "dataset", "split", "n", "offset"),
    *("norm", "epsilon", "attack", "parameters", "attack_seed", "precision"),
    *("clean_accuracy", "clean_accuracy_low", "clean_accuracy_high"),
    *("robust_accuracy", "robust_accuracy_low", "robust_accuracy_high"),
    *("conditional_robustness", "conditional_robustness_low", "conditional_robustness_high"),
    *("nfe_clean", "nfe_adversarial", "seconds", "flags", "outcomes"),
    *("dataset_sha256", "weights_sha256", "run_key", "created", "file"),
)
"""The columns of the table, in order."""


def _row(item: StoredResult, at: EpsilonResult) -> dict[str, Any]:
    result, evaluation = item.result, item.evaluation
    return {
        "model": evaluation.model.name,
        "arguments": canonical_json(evaluation.model.other_arguments),
        "train_seed": evaluation.model.train_seed,
        "train_horizon": evaluation.train_horizon,
        "horizon": evaluation.horizon,
        "solver": None if evaluation.solver is None else str(evaluation.solver),
        "dataset": evaluation.dataset.name,
        "split": evaluation.dataset.split,
        "n": evaluation.dataset.n,
        "offset": evaluation.dataset.offset,
        "norm": evaluation.threat_model.norm,
        "epsilon": at.epsilon,
        "attack": evaluation.attack.name,
        "parameters": canonical_json(evaluation.attack.parameters),
        "attack_seed": evaluation.attack.seed,
        "precision": evaluation.precision,
        **figure_columns(at.figures, "clean_accuracy", "robust_accuracy", "conditional_robustness"),
        "nfe_clean": None if result.nfe.clean is None else result.nfe.clean.mean,
        "nfe_adversarial": None if result.nfe.adversarial is None else result.nfe.adversarial.mean,
        "seconds": result.cost.seconds,
        "flags": ", ".join(result.flags),
        "outcomes": at.outcomes,
        "dataset_sha256": result.found.dataset_sha256,
        "weights_sha256": result.found.weights_sha256,
        "run_key": result.run_key,
        "created": result.created,
        "file": item.path.as_posix(),
    }
