"""From stored results to tables: which results belong together, and what they say of a model."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import reduce
from operator import or_
from statistics import fmean

from odebench.errors import ResultError
from odebench.io.canonical_json import canonical_json
from odebench.leaderboard.credit import author_of, can_be_judged_anew, credits_of
from odebench.leaderboard.grouping import group
from odebench.leaderboard.table import Cell, Reach, Row, Table, in_order, short_solver
from odebench.leaderboard.union import OutcomeSets, StoredResult, could_lower, image_set, union
from odebench.numerics.statistics import share_interval
from odebench.protocol.spec import Solver
from odebench.result.outcome import EXAMINATION, Flag
from odebench.result.schema import Figure

WORST_CASE = "worst-case"
FLAG_MEANINGS: dict[str, str] = {
    Flag.RANDOMISED: "the model draws random numbers; its letters rest on repeated passes, and it is not ranked",
    Flag.BATCH_COUPLED: "the solver shares step sizes within a batch, so images were judged one at a time",
    Flag.NO_TRANSFER: "there was no other model to craft candidates on: the transfer stage was skipped",
    Flag.UNSEEDED: "the model draws from its own random generator, so another run gives other letters",
    Flag.FEW_CANDIDATES: "the file has no candidate for some images, which were not attacked",
    Flag.OPAQUE_GRADIENT: "the module hides its solver, and its gradient could not be confirmed",
}
SETTINGS_FLAGS = (Flag.NO_TRANSFER, Flag.FEW_CANDIDATES)  # these say nothing of the model, as some checks do


@dataclass(frozen=True)
class _RowKey:
    model: str
    arguments: str
    fixed_train_horizon: float | None
    solver: Solver | None


_ModelKey = tuple[_RowKey, float | None, str]
"""A row, a horizon and a train seed: within one data set these are weights, horizon and solver."""


@dataclass(frozen=True)
class _Seed:
    """All results of one train seed in one norm, their union, whether results of it in any norm examine it, and those
    that are not counted, since nobody can judge their candidates anew."""

    stored: tuple[StoredResult, ...]
    outcomes: OutcomeSets
    examined: bool
    not_counted: tuple[StoredResult, ...]


def build_tables(stored: Sequence[StoredResult]) -> tuple[list[Table], list[ResultError]]:
    """A table for each data set, norm and epsilon, and the problems: results that contradict each other.

    Results of different data or weights are never joined: data sets of one name get tables of their own, and of several
    weights for one train seed the newest result's are shown. The best ranked rows come first.
    """
    stored = sorted(stored, key=lambda item: (item.result.run_key, item.result.outcomes_sha256, str(item.path)))
    tables: list[Table] = []
    problems: list[ResultError] = []
    for (dataset, split), same_name in group(stored, _dataset_name).items():
        by_digest = group(same_name, lambda item: item.result.found.dataset_sha256)
        shared = len(by_digest) > 1
        first = same_name[0]
        for digest, same_data in sorted(by_digest.items()):
            if digest != first.result.found.dataset_sha256:
                problems.append(_two_datasets(first, same_data[0]))
            results, found = one_weights_a_seed(same_data)
            problems += found
            examined = _examined(results)
            for norm, same_norm in group(results, lambda item: item.evaluation.threat_model.norm).items():
                cells, found = _cells(same_norm, examined)
                problems += found
                tables += [
                    Table(dataset, split, digest, shared, norm, epsilon, _rows(rows)) for epsilon, rows in cells.items()
                ]
    tables.sort(key=lambda table: (table.dataset, table.split, table.dataset_sha256, table.norm, table.epsilon))
    return tables, problems


def one_weights_a_seed(stored: Sequence[StoredResult]) -> tuple[list[StoredResult], list[ResultError]]:
    """The results of the newest weights of each train seed, and the problems: results of other weights."""
    kept: list[StoredResult] = []
    problems: list[ResultError] = []
    for same_seed in group(stored, _model_key).values():
        newest = max(same_seed, key=lambda item: (item.result.created, item.result.found.weights_sha256))
        for weights, same in group(same_seed, lambda item: item.result.found.weights_sha256).items():
            if weights == newest.result.found.weights_sha256:
                kept += same
            else:
                problems.append(_two_weights(same[0], newest))
    return kept, problems


def _cells(
    stored: Sequence[StoredResult], examined: Set[_ModelKey]
) -> tuple[dict[float, dict[_RowKey, list[Cell]]], list[ResultError]]:
    """The cells of one data set and norm, by epsilon and row; `examined` are the models of it that are, in any norm."""
    cells: dict[float, dict[_RowKey, list[Cell]]] = defaultdict(lambda: defaultdict(list))
    problems: list[ResultError] = []
    for (row, _), found in group(stored, lambda item: (_row_key(item), item.evaluation.horizon)).items():
        seeds: list[_Seed] = []
        for same in group(found, train_seed).values():
            counted = tuple(item for item in same if can_be_judged_anew(item))
            if not counted:
                continue
            others = tuple(item for item in same if not can_be_judged_anew(item))
            try:
                seeds.append(_Seed(counted, union(counted), _model_key(same[0]) in examined, others))
            except ResultError as error:
                problems.append(error)
        for epsilon in sorted({epsilon for seed in seeds for epsilon in seed.outcomes.judged}):
            present = [seed for seed in seeds if epsilon in seed.outcomes.judged]
            try:
                cell = _cell(present, epsilon)
            except ResultError as error:
                problems.append(error)
            else:
                cells[epsilon][row].append(cell)
    return cells, problems


def _cell(seeds: Sequence[_Seed], epsilon: float) -> Cell:
    """One model at one horizon. Raises ResultError where its train seeds have no image in common."""
    evaluated = [[item for item in seed.stored if epsilon in item.evaluation.threat_model.epsilons] for seed in seeds]
    worst = [[item for item in items if _is_worst_case(item)] for items in evaluated]
    attacked, examined = all(worst), all(seed.examined for seed in seeds)
    largest = [max(items, key=_size) for items in (worst if attacked else evaluated)]
    images = image_set(largest[0].result)
    for item in largest[1:]:
        images &= image_set(item.result)
        if not images:
            raise ResultError(
                f"{largest[0].path} and {item.path} are train seeds of one model without an image in common; "
                "evaluate both on the same images (n and offset)"
            )
    n = images.bit_count()
    shares = [seed.outcomes.shares(epsilon, images) for seed in seeds]
    flags = {
        flag: _meaning(flag, item)
        for seed in seeds
        for item in seed.stored
        for flag in item.result.flags
        # What is about the settings of another attack says nothing of a model shown by its worst case.
        if not (attacked and not _is_worst_case(item) and speaks_of_settings(flag, item))
    }
    nfe = [item.result.nfe for item in largest]
    evaluation = largest[0].result.evaluation
    return Cell(
        horizon=evaluation.horizon,
        train_horizon=evaluation.train_horizon,
        ranked=attacked and examined and Flag.RANDOMISED not in flags,
        n=n,
        seeds=len(seeds),
        clean_accuracy=_figure([clean for clean, _ in shares], n),
        robust_accuracy=_figure([robust for _, robust in shares], n),
        nfe_clean=_mean([item.clean.mean for item in nfe if item.clean]),
        nfe_adversarial=_mean([item.adversarial.mean for item in nfe if item.adversarial]),
        attacks=_attacks(seeds, epsilon, images),
        examined=examined,
        flags=dict(sorted(flags.items())),
        credits=credits_of([(seed.stored, seed.outcomes) for seed in seeds], images, epsilon),
        not_counted=_not_counted(seeds, epsilon, images),
        files=dict(sorted((train_seed(item), item.path) for item in largest)),
        results=tuple(item for seed in seeds for item in seed.stored),
    )


def _not_counted(seeds: Sequence[_Seed], epsilon: float, images: int) -> tuple[str, ...]:
    """The authors of candidates that nobody can judge anew, and that could lower a figure if they were counted."""
    items = [item for seed in seeds for item in seed.not_counted if could_lower(item, epsilon, images)]
    return tuple(sorted({author_of(item) or "" for item in items}))


def _examined(stored: Sequence[StoredResult]) -> Set[_ModelKey]:
    """The models whose results hold all checks that look for masked gradients, whatever the norm and epsilon.

    A check that could not be made does not count, unless that is the model's doing.
    """
    made: dict[_ModelKey, set[int]] = defaultdict(set)
    for item in stored:
        made[_model_key(item)] |= {
            check.id for check in item.result.checks if check.status != "skipped" or check.speaks_of == "model"
        }
    return {key for key, checks in made.items() if checks.issuperset(EXAMINATION)}


def _attacks(seeds: Sequence[_Seed], epsilon: float, images: int) -> dict[str, Reach]:
    """How many seeds and images each attack was run on that could lower a figure over `images` at `epsilon`."""
    counts: dict[str, list[int]] = defaultdict(list)
    for seed in seeds:
        relevant = [item for item in seed.stored if could_lower(item, epsilon, images)]
        for name, same in group(relevant, attack_label).items():
            reached = reduce(or_, (image_set(item.result) & images for item in same))
            counts[name].append(reached.bit_count())
    return {name: Reach(len(reached), min(reached)) for name, reached in sorted(counts.items())}


def _rows(cells: Mapping[_RowKey, Sequence[Cell]]) -> tuple[Row, ...]:
    solvers = group(cells, lambda key: key.model)
    rows: list[Row] = []
    for key, found in cells.items():
        arguments = json.loads(key.arguments)
        details = [f"{name}={value}" for name, value in arguments.items()]
        if key.fixed_train_horizon is not None:
            details.append(f"trained at T={key.fixed_train_horizon:g}")
        if key.solver is not None and len({other.solver for other in solvers[key.model]}) > 1:
            details.append(short_solver(key.solver))
        by_horizon = {cell.horizon: cell for cell in found}
        ordered = {horizon: by_horizon[horizon] for horizon in in_order(set(by_horizon))}
        rows.append(Row(key.model, arguments, key.solver, tuple(details), ordered))
    return tuple(sorted(rows, key=lambda row: (row.best is None, -(row.best or 0.0), row.model, row.details)))


def _figure(shares: Sequence[float], n: int) -> Figure:
    value, low, high = share_interval(shares, n)
    return Figure(value=value, low=low, high=high)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _meaning(flag: str, item: StoredResult) -> str:
    named = [check.why for check in item.result.checks if check.name == flag and check.status == "flag"]
    return FLAG_MEANINGS.get(flag) or next(iter(named), "see the checks in the result file")


def speaks_of_settings(flag: str, item: StoredResult) -> bool:
    """Whether a flag of a result is about the settings of its attack rather than about the model."""
    return flag in SETTINGS_FLAGS or any(
        check.name == flag and check.speaks_of == "settings" for check in item.result.checks
    )


def _two_datasets(first: StoredResult, second: StoredResult) -> ResultError:
    name, split = _dataset_name(first)
    digests = [item.result.found.dataset_sha256[:12] for item in (first, second)]
    return ResultError(
        f"{first.path} and {second.path} are results on two data sets called {name} ({split}), of sha256 "
        f"{' and '.join(digests)}; they are shown apart: rename one data set, or delete the results on the wrong one"
    )


def _two_weights(older: StoredResult, newest: StoredResult) -> ResultError:
    digests = [item.result.found.weights_sha256[:12] for item in (older, newest)]
    return ResultError(
        f"{older.path} and {newest.path} are results of one model from different weights, of sha256 "
        f"{' and '.join(digests)}; the newer are shown: delete the older files, or run these again with --force"
    )


def _row_key(item: StoredResult) -> _RowKey:
    evaluation = item.evaluation
    same = evaluation.train_horizon == evaluation.horizon
    return _RowKey(
        evaluation.model.name,
        canonical_json(evaluation.model.other_arguments),
        None if same else evaluation.train_horizon,
        evaluation.solver,
    )


def _model_key(item: StoredResult) -> _ModelKey:
    return _row_key(item), item.evaluation.horizon, train_seed(item)


def _is_worst_case(item: StoredResult) -> bool:
    return item.evaluation.attack.name == WORST_CASE


def train_seed(item: StoredResult) -> str:
    """The train seed of a result's model as JSON."""
    return canonical_json(item.evaluation.model.train_seed)


def _dataset_name(item: StoredResult) -> tuple[str, str]:
    return item.evaluation.dataset.name, item.evaluation.dataset.split


def attack_label(item: StoredResult) -> str:
    """The attack with its effort, precision and coarse solver where these are not the usual ones."""
    evaluation = item.evaluation
    effort = evaluation.attack.effort
    parts = [evaluation.attack.name, *([effort] if effort else [])]
    parts += [evaluation.precision] if evaluation.precision != "fp32" else []
    parts += ["surrogate first"] if evaluation.attack.surrogate else []
    return " ".join(parts)


def _size(item: StoredResult) -> tuple[int, int]:
    """Orders results by the number of their images, then by how early in the data set these begin."""
    return item.evaluation.dataset.n, -item.evaluation.dataset.offset
