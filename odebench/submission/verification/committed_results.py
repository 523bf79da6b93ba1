"""What an entry's committed results are: read, planned again from the entry, and held against what it must show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from odebench.attack.builtin import PGD, QUICK_DIAGNOSIS
from odebench.attack.definition import load_attack
from odebench.dataset import describe_dataset
from odebench.dataset.definition import DatasetDefinition
from odebench.errors import OdebenchError, ResultError
from odebench.evaluation.plan import DEFAULT_CHUNK, Plan, Slice, plan, planned_again
from odebench.protocol.spec import Evaluation, Solver, radius
from odebench.result.file import read_result, result_files
from odebench.result.schema import Result
from odebench.submission.entry import ENTRY_FILE, ClaimedFigure, Entry, Use, contradictions, speaks_of
from odebench.submission.finding import Finding, finding
from odebench.submission.submitted_model import SubmittedModel, contestant_of

COVERED = 500
"""How many test images a result of PGD must have for each data set and horizon, or all where there are fewer."""

_SOME_EPSILON = 8 / 255
"""Where a model is asked on a data set that has no radii of its own."""


@dataclass(frozen=True)
class Images:
    """The test or validation images of a data set: how many, and their sha256."""

    n: int
    sha256: str


@dataclass(frozen=True)
class Committed:
    """A committed result and the plan that finds it again."""

    path: Path
    result: Result
    plan: Plan

    @property
    def evaluation(self) -> Evaluation:
        """What was evaluated."""
        return self.result.evaluation

    @property
    def weights(self) -> tuple[str, float | None, int]:
        """Data set, train horizon and train seed."""
        return self.evaluation.dataset.name, self.evaluation.train_horizon, train_seed(self.evaluation)


Splits = Mapping[tuple[str, str], Images]


def train_seed(evaluation: Evaluation) -> int:
    """The train seed of an evaluation; 0 where it says none."""
    seed = evaluation.model.train_seed
    return seed if isinstance(seed, int) else 0


def committed_results(
    folder: Path,
    entry: Entry,
    results: Path,
    splits: Splits,
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
) -> tuple[list[Committed], list[Finding]]:
    """The results of an entry below `results`, or those on one `dataset`, that can be planned again, with the weights
    that it lists, and what is wrong with the others. `splits` are the images at hand."""
    good: list[Committed] = []
    findings: list[Finding] = []
    for path in result_files(results / entry.id):
        try:
            result = read_result(path)
        except ResultError as error:
            findings.append(finding(str(path), None, "result", str(error).removeprefix(f"{path} ")))
            continue
        if dataset not in (None, result.evaluation.dataset.name):
            continue
        try:
            good.append(Committed(path, result, _planned(folder, entry, result, splits, data_dir)))
        except OdebenchError as error:
            findings.append(finding(str(path), None, "result", f"does not fit the entry: {error}"))
    return good, findings


def _planned(folder: Path, entry: Entry, result: Result, splits: Splits, data_dir: Path | None) -> Plan:
    evaluation = result.evaluation
    part = evaluation.dataset
    if evaluation.model.name != entry.id:
        raise ResultError(f"it is of {evaluation.model.name!r}, not of {entry.id}; put it into that folder")
    images = splits.get((part.name, part.split))
    if images is None:
        raise ResultError(f"the entry is not trained for {part.name}; list it there, or delete the result")
    definition = describe_dataset(part.name, data_dir=data_dir)
    found = planned_again(evaluation, contestant_of(folder, entry), definition, total=images.n)
    own, trained = SubmittedModel(folder, entry), (part.name, evaluation.train_horizon, train_seed(evaluation))
    listed = entry.weights_for(*trained)
    if listed is not None and (found.handed_over or found.recipe.key == _recipe_key(own, definition, evaluation)):
        found = replace(found, weights=own.weights_of(*trained))
        if listed.sha256 != result.found.weights_sha256:
            raise ResultError(
                f"it was found with weights {result.found.weights_sha256[:12]}, the entry lists {listed.sha256[:12]}; "
                "run it again with --force"
            )
    if result.found.dataset_sha256 != images.sha256:
        raise ResultError(
            f"it was found with {part.split} images {result.found.dataset_sha256[:12]}, those of {part.name} are "
            f"{images.sha256[:12]}; run it again with --force"
        )
    return found


def planned_weights(
    folder: Path, entry: Entry, dataset: str, horizon: float | None, seed: int, *, data_dir: Path | None = None
) -> Plan:
    """The plan of a quick diagnosis of weights that an entry lists."""
    definition = describe_dataset(dataset, data_dir=data_dir)
    found = plan(
        contestant_of(folder, entry),
        QUICK_DIAGNOSIS.name,
        definition,
        total=DEFAULT_CHUNK,
        images=Slice(n=DEFAULT_CHUNK),
        train_horizon=horizon,
        train_seed=seed,
        epsilons=None if definition.epsilons else (_SOME_EPSILON,),
    )
    return replace(found, weights=SubmittedModel(folder, entry).weights_of(dataset, horizon, seed))


def _recipe_key(own: SubmittedModel, definition: DatasetDefinition, evaluation: Evaluation) -> str:
    return own.subject(
        definition,
        horizon=None,
        train_horizon=evaluation.train_horizon,
        train_seed=train_seed(evaluation),
        changes={},
    ).origin.key


def as_trained(entry: Entry, evaluation: Evaluation) -> bool:
    """Whether an evaluation asks the model as it was trained: horizon and solver, on test images from the first on, in
    fp32, without a surrogate."""
    use = entry.use(evaluation.dataset.name)
    solver: Solver | None = None if use is None else entry.solver_for(use)
    part = evaluation.dataset
    return (
        (part.split, part.offset, evaluation.precision, evaluation.attack.surrogate) == ("test", 0, "fp32", None)
        and evaluation.horizon == evaluation.train_horizon
        and evaluation.solver == solver
    )


def can_be_repeated(evaluation: Evaluation) -> bool:
    """Whether a chunk of an evaluation can be attacked on its own: not where candidates come from a file, nor where the
    attack compares all images with one another."""
    attack = load_attack(evaluation.attack.name)
    return not (attack.needs_candidates or attack.examines)


def uncovered(
    folder: Path, entry: Entry, results: Sequence[Committed], splits: Splits, *, data_dir: Path | None = None
) -> Iterator[Finding]:
    """A finding for each data set and horizon of which no train seed has PGD on enough test images."""
    for use in entry.datasets:
        wanted = min(COVERED, splits[use.name, "test"].n)
        grid = describe_dataset(use.name, data_dir=data_dir).epsilons.get(PGD.norms[0], ())
        for horizon in use.horizons or (None,):
            if not any(_covers(each.evaluation, entry, use, horizon, wanted, grid) for each in results):
                at = "" if horizon is None else f" --horizon {horizon:g}"
                said = (
                    f"no result of {PGD.name} on {wanted} test images of {use.name}"
                    f"{'' if horizon is None else f' at horizon {horizon:g}'}, as it is by default; run: odebench run "
                    f"--model {entry.id} --dataset {use.name}{at} --attack {PGD.name} -n {wanted} "
                    f"{'--trust ' if entry.contributed else ''}--results leaderboard/results"
                )
                yield finding(str(folder / ENTRY_FILE), None, "coverage", said)


def _covers(
    evaluation: Evaluation, entry: Entry, use: Use, horizon: float | None, n: int, grid: tuple[float, ...]
) -> bool:
    return (
        as_trained(entry, evaluation)
        and (evaluation.dataset.name, evaluation.horizon) == (use.name, horizon)
        and (evaluation.attack.name, evaluation.threat_model.norm) == (PGD.name, PGD.norms[0])
        and evaluation.attack.parameters == PGD.complete()
        and set(grid) <= set(evaluation.threat_model.epsilons)
        and evaluation.dataset.n >= n
    )


def claimed(folder: Path, entry: Entry, results: Sequence[Committed]) -> Iterator[Finding]:
    """A finding for each claim that no committed result is about, or that one contradicts."""
    for claim in entry.claims:
        where = f"the claim about {words(claim)}"
        spoken_of = [each for each in results if speaks_of(claim, entry, each.evaluation)]
        if not spoken_of:
            said = f"{where} has no committed result; run it with --results leaderboard/results, or strike the claim"
            yield finding(str(folder / ENTRY_FILE), None, "claim", said)
        for each in spoken_of:
            for said in contradictions(claim, each.result):
                yield finding(str(folder / ENTRY_FILE), None, "claim", f"{where}: {said} in {each.path}")


def words(claim: ClaimedFigure) -> str:
    """A claim in a few words."""
    at = "" if claim.horizon is None else f" T={claim.horizon:g}"
    return (
        f"{claim.dataset}{at} seed {claim.train_seed}, {claim.attack} in {claim.norm} at {radius(claim.epsilon)}, "
        f"n={claim.n}"
    )
