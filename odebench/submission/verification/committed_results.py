"""An entry's committed results: read, planned again from the entry, and checked against what an entry must show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from odebench.attack.builtin import PGD, QUICK_DIAGNOSIS
from odebench.attack.definition import load_attack
from odebench.dataset import Dataset, Split, describe_dataset
from odebench.errors import OdebenchError, ResultError
from odebench.evaluation.plan import DEFAULT_CHUNK, EvaluationRequest, Plan, Slice, plan, planned_again
from odebench.protocol.spec import Evaluation, Solver
from odebench.result.file import read_result, result_files
from odebench.result.schema import Result
from odebench.submission.claims import claim_title, contradictions, is_about
from odebench.submission.entry import ENTRY_FILE, Entry, Use
from odebench.submission.finding import Finding, finding
from odebench.submission.submitted_model import SubmittedModel, reference_of

COVERED = 500
"""The number of test images that a PGD result needs for each data set and horizon; all if there are fewer."""

_DEFAULT_EPSILON = 8 / 255
"""The epsilon for data sets that define none."""


@dataclass(frozen=True)
class Committed:
    """A committed result and the plan that repeats it."""

    path: Path
    result: Result
    plan: Plan

    @property
    def evaluation(self) -> Evaluation:
        return self.result.evaluation

    @property
    def weights(self) -> tuple[str, float | None, int]:
        """Data set, train horizon and train seed."""
        return self.evaluation.dataset.name, self.evaluation.train_horizon, train_seed(self.evaluation)


def train_seed(evaluation: Evaluation) -> int:
    """The train seed of an evaluation; 0 if it names none."""
    seed = evaluation.model.train_seed
    return seed if isinstance(seed, int) else 0


def committed_results(
    folder: Path,
    entry: Entry,
    results: Path,
    data: Mapping[str, Dataset],
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
) -> tuple[list[Committed], list[Finding]]:
    """The results of an entry below `results`, or those on one `dataset`, that can be planned again with the weights
    that it lists, and findings about the others. `data` holds the data sets at hand by name."""
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
            good.append(Committed(path, result, _planned(folder, entry, result, data, data_dir)))
        except OdebenchError as error:
            findings.append(finding(str(path), None, "result", f"does not fit the entry: {error}"))
    return good, findings


def _planned(folder: Path, entry: Entry, result: Result, data: Mapping[str, Dataset], data_dir: Path | None) -> Plan:
    evaluation = result.evaluation
    part = evaluation.dataset
    if evaluation.model.name != entry.id:
        raise ResultError(f"it is of {evaluation.model.name!r}, not of {entry.id}; put it into that folder")
    images: Split | None = getattr(data.get(part.name), part.split, None)
    if images is None:
        raise ResultError(f"the entry is not trained for {part.name}; list it there, or delete the result")
    definition = describe_dataset(part.name, data_dir=data_dir)
    found = planned_again(evaluation, reference_of(folder, entry), definition, total=len(images))
    own, trained = SubmittedModel(folder, entry), (part.name, evaluation.train_horizon, train_seed(evaluation))
    listed = entry.weights_for(*trained)
    horizons = {"horizon": None, "train_horizon": evaluation.train_horizon}
    if listed is not None and (
        found.handed_over
        or found.recipe.key == own.resolve(definition, **horizons, train_seed=trained[2], changes={}).origin.key
    ):
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
    """The plan of a quick diagnosis of the weights that an entry lists for a data set, train horizon and seed."""
    definition = describe_dataset(dataset, data_dir=data_dir)
    request = EvaluationRequest(
        reference_of(folder, entry),
        QUICK_DIAGNOSIS.name,
        images=Slice(n=DEFAULT_CHUNK),
        train_horizon=horizon,
        train_seed=seed,
        epsilons=None if definition.epsilons else (_DEFAULT_EPSILON,),
    )
    found = plan(request, definition, total=DEFAULT_CHUNK)
    return replace(found, weights=SubmittedModel(folder, entry).weights_of(dataset, horizon, seed))


def as_trained(entry: Entry, evaluation: Evaluation) -> bool:
    """Whether an evaluation asks the model at the horizon and with the solver of its training, on test images from the
    first on, in fp32 and without a coarse solver."""
    use = entry.use(evaluation.dataset.name)
    solver: Solver | None = None if use is None else entry.solver_for(use)
    images = evaluation.dataset
    return (
        (images.split, images.offset, evaluation.precision, evaluation.attack.surrogate) == ("test", 0, "fp32", None)
        and evaluation.horizon == evaluation.train_horizon
        and evaluation.solver == solver
    )


def can_be_repeated(evaluation: Evaluation) -> bool:
    """Whether a chunk of an evaluation can be attacked on its own: not if candidates come from a file, or if the attack
    is a diagnosis, which looks at all images together."""
    return load_attack(evaluation.attack.name).runs_by_chunk


def coverage_findings(
    folder: Path,
    entry: Entry,
    results: Sequence[Committed],
    data: Mapping[str, Dataset],
    *,
    data_dir: Path | None = None,
) -> Iterator[Finding]:
    """A finding for each data set and horizon where no train seed has a PGD result on enough test images."""
    for use in entry.datasets:
        wanted = min(COVERED, len(data[use.name].test))
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


def claim_result_findings(folder: Path, entry: Entry, results: Sequence[Committed]) -> Iterator[Finding]:
    """A finding for each claim that no committed result is about, or that a result contradicts."""
    for claim in entry.claims:
        where = f"the claim about {claim_title(claim)}"
        about = [each for each in results if is_about(claim, entry, each.evaluation)]
        if not about:
            said = f"{where} has no committed result; run it with --results leaderboard/results, or remove the claim"
            yield finding(str(folder / ENTRY_FILE), None, "claim", said)
        for each in about:
            for said in contradictions(claim, each.result):
                yield finding(str(folder / ENTRY_FILE), None, "claim", f"{where}: {said} in {each.path}")
