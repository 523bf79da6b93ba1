"""Results as a table for analysis, with the extra `pandas`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odebench.errors import UsageError
from odebench.io.canonical_json import canonical_json
from odebench.leaderboard.read import read_results
from odebench.leaderboard.union import StoredResult
from odebench.result.file import read_result
from odebench.result.schema import EpsilonResult, figure_columns

if TYPE_CHECKING:
    import pandas


def load_results(path: Path | str) -> pandas.DataFrame:
    """A pandas DataFrame of a result file or of all results below a folder: one row per evaluation and epsilon.

    Accuracies are in [0, 1]; a model's arguments without its train seed are JSON; flags are separated by commas; what
    is null in a result is missing. Raises UsageError without pandas, and ResultError for the first file that is not a
    result, so that nothing is left out in silence.
    """
    if find_spec("pandas") is None:
        raise UsageError("load_results needs pandas: pip install 'odebench[pandas]'; odebench.read_result does without")
    import pandas

    where = Path(path)
    if where.is_file():
        stored = [StoredResult(where, read_result(where))]
    else:
        stored, problems = read_results([where])
        if problems:
            raise problems[0]
    rows = [_row(item, at) for item in stored for at in item.result.epsilons]
    return pandas.DataFrame(rows, columns=list(COLUMNS))


COLUMNS = (
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
