"""Candidates made elsewhere, judged anew on images that were drawn: what review asks of a result of `judge`."""

from __future__ import annotations

import random
from pathlib import Path

from odebench.attack.candidate_file import read_candidates
from odebench.dataset import describe_dataset, load_dataset
from odebench.evaluation.evaluate import data_split, given_candidates
from odebench.evaluation.execution import measure
from odebench.evaluation.loading import load_models
from odebench.evaluation.model_reference import ModelReference
from odebench.evaluation.plan import planned_again
from odebench.io.remote_weights import fetch
from odebench.leaderboard.union import StoredResult
from odebench.model.process_channel import TimeBudget
from odebench.progress import SILENT, Progress
from odebench.submission.finding import Finding, finding
from odebench.submission.verification.agreement import TOLERATED, differing
from odebench.submission.verification.sampling import DRAWN, block


def judged_anew(
    item: StoredResult,
    model: ModelReference,
    *,
    draw: int,
    time_limit: int,
    device: str = "cpu",
    data_dir: Path | None = None,
    progress: Progress = SILENT,
) -> list[Finding]:
    """What is wrong with a result of candidates whose file has an address: it is fetched, and judged anew on two drawn
    blocks of the result's images. Raises an OdebenchError where the file or the model cannot be had."""
    evaluation, named = item.evaluation, item.result.found.candidates
    assert named is not None
    assert named.address is not None
    part = evaluation.dataset
    definition = describe_dataset(part.name, data_dir=data_dir)
    data = load_dataset(part.name, data_dir=data_dir, progress=progress)
    split = data_split(data, part.split)
    plan = planned_again(evaluation, model, definition, total=len(split))
    file = fetch(named.address, sha256=named.sha256, seconds=time_limit, progress=progress)
    given = given_candidates(plan, read_candidates(file), split)
    size = block(evaluation)
    starts = list(range(0, part.n, size))
    chosen = sorted(random.Random(f"{draw}/{evaluation.run_key}").sample(starts, min(DRAWN, len(starts))))
    differ = compared = 0
    with load_models(plan, data, device, progress, budget=TimeBudget(time_limit)) as models:
        for start in chosen:
            rows = slice(start, min(start + size, part.n))
            found = measure(evaluation, models, split, rows=rows, candidates=given)
            now = ["".join(one.letters) for one in found.outcomes]
            committed = [one.outcomes[rows] for one in item.result.epsilons]
            differ += differing(now, committed)
            compared += sum(map(len, now))
    if differ <= TOLERATED * compared:
        return []
    said = f"{differ} of {compared} letters differ from those that its candidates get now"
    return [finding(str(item.path), None, "letters", said)]
