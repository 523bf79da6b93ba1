"""Making the example images of a stored result: its first chunk is attacked again and must give the same outcomes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from odebench.attack.candidate_file import Candidates, read_candidates
from odebench.dataset import Dataset, Split
from odebench.dataset.definition import DatasetDefinition
from odebench.errors import ResultError, UsageError
from odebench.evaluation.evaluate import data_split, run
from odebench.evaluation.loading import load_models
from odebench.evaluation.model_reference import ModelReference
from odebench.evaluation.plan import Plan, planned_again
from odebench.evaluation.verdict import RANDOMISED_PASSES, Judge
from odebench.io.files import write_atomically
from odebench.io.scratch import scratch_folder
from odebench.leaderboard import example_images
from odebench.leaderboard.build import attack_label
from odebench.leaderboard.example_images import ExamplePair, Examples
from odebench.leaderboard.union import StoredResult
from odebench.model.classifier import Classifier
from odebench.progress import SILENT, Progress
from odebench.protocol.spec import Evaluation
from odebench.result.file import EXAMPLES_FILE
from odebench.result.outcome import CORRECT, SUCCESSFUL, Flag
from odebench.result.schema import Result


def make_examples(
    item: StoredResult,
    dataset: Dataset,
    definition: DatasetDefinition,
    *,
    model: ModelReference,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> Path:
    """Writes the examples of a stored result beside it and returns their folder: the first images of its first chunk
    that its `model` classifies correctly, each with the last candidate judged at the middle epsilon.

    Outcomes do not depend on the number of images, so only that chunk is attacked again, up to the middle epsilon.
    Raises ResultError if the model cannot be built again, or if images, weights or outcomes differ from the result.
    """
    evaluation = item.result.evaluation
    epsilon, split = evaluation.threat_model.middle_epsilon, data_split(dataset, evaluation.dataset.split)
    _planned(item, model, definition, len(split), evaluation)
    part = _planned(
        item, model, definition, len(split), _first_chunk(evaluation, epsilon, doubt=bool(item.result.doubt))
    )
    with scratch_folder() as folder:
        again, _, _ = run(
            part,
            dataset,
            results=folder,
            save_candidates=folder / "candidates.safetensors",
            device=device,
            progress=progress,
        )
        candidates = read_candidates(folder / "candidates.safetensors")
    rows = _rows(item, again)
    indices = [row + evaluation.dataset.offset for row in rows]
    points = _points(candidates, indices, epsilon)
    with load_models(part, dataset, device, progress) as models:
        predicted = _predicted(item.result, models.classifier, split, points, indices)
    stored = {found.epsilon: found for found in item.result.epsilons}[epsilon]
    felled_by = stored.felled_by.codes(evaluation.dataset.n)
    pairs = []
    for row, index, label in zip(rows, indices, predicted, strict=True):
        outcome, felled = stored.outcomes[row], felled_by[row]
        pairs.append(
            ExamplePair(
                index=index,
                label=dataset.classes[int(split.labels[index])],
                predicted=None if label is None else dataset.classes[label],
                outcome=cast('Literal["f", "x", "r"]', outcome),
                felled_by=stored.felled_by.legend[felled] if outcome in SUCCESSFUL else None,
            )
        )
    examples = Examples(
        schema_version=1,
        run_key=item.result.run_key,
        dataset=evaluation.dataset.name,
        norm=evaluation.threat_model.norm,
        epsilon=epsilon,
        attack=attack_label(item),
        pairs=tuple(pairs),
    )
    return _write(example_images.examples_folder(item), examples, split, points)


def _first_chunk(evaluation: Evaluation, epsilon: float, *, doubt: bool) -> Evaluation:
    n = min(evaluation.chunk, evaluation.dataset.n)
    # Where doubt was raised, a success at any radius may have raised it.
    radii = tuple(one for one in evaluation.threat_model.epsilons if one <= epsilon or doubt)
    return evaluation.model_copy(
        update={
            "dataset": evaluation.dataset.model_copy(update={"n": n}),
            "threat_model": evaluation.threat_model.model_copy(update={"epsilons": radii}),
        }
    )


def _planned(
    item: StoredResult, model: ModelReference, definition: DatasetDefinition, total: int, evaluation: Evaluation
) -> Plan:
    """The plan of an evaluation. Raises ResultError if this version of odebench plans another one."""
    try:
        return planned_again(evaluation, model, definition, total=total)
    except UsageError as error:
        raise ResultError(f"{item.path} cannot be run again here: {error}") from error


def _rows(item: StoredResult, again: Result) -> list[int]:
    """The rows of the images to show. Raises ResultError if the repeated attack found other outcomes."""
    stored, here = item.result.found, again.found
    for what, ours, theirs in (
        ("images", here.dataset_sha256, stored.dataset_sha256),
        ("weights", here.weights_sha256, stored.weights_sha256),
        *(("sources", here.sources_sha256[name], sha256) for name, sha256 in stored.sources_sha256.items()),
    ):
        if ours != theirs:
            raise ResultError(
                f"{item.path} was found with {what} {theirs[:12]}, those at hand are {ours[:12]}; ODEBENCH_CACHE names "
                "the folder of weights"
            )
    epsilon = item.result.evaluation.threat_model.middle_epsilon
    outcomes, expected = (
        {found.epsilon: found.outcomes for found in one.epsilons}[epsilon] for one in (again, item.result)
    )
    rows = [row for row, outcome in enumerate(expected[: len(outcomes)]) if outcome in CORRECT][: example_images.MOST]
    if not rows:
        raise ResultError(f"{item.path} has no image in its first chunk that is classified correctly: nothing to show")
    if different := [str(row) for row in rows if outcomes[row] != expected[row]]:
        raise ResultError(
            f"{item.path}: images {', '.join(different)} end in other letters here; run it again with --force on this "
            "machine, or make the examples where it was made"
        )
    return rows


def _points(candidates: Candidates, indices: list[int], epsilon: float) -> Float[Tensor, "n channel height width"]:
    """The last candidate judged for each image: at `epsilon`, or at the smaller one that already sufficed."""
    found = []
    for index in indices:
        near = (candidates.indices == index) & (candidates.epsilons <= epsilon)
        rows = near.nonzero().flatten().tolist()
        found.append(candidates.images[max(rows, key=lambda row: float(candidates.epsilons[row]))])
    return torch.stack(found)


def _predicted(
    result: Result, classifier: Classifier, split: Split, points: Tensor, indices: list[int]
) -> list[int | None]:
    """The label that the verdict gives each point; None where the solver failed."""
    judge = Judge(
        classifier,
        alone=Flag.BATCH_COUPLED in result.flags,
        passes=RANDOMISED_PASSES if Flag.RANDOMISED in result.flags else 1,
        seed=result.evaluation.attack.seed,
    )
    with classifier.frozen():
        opinion = judge.opinion(points, split.labels[indices], of=split.images[indices])
    found: list[int | None] = []
    for row, label in enumerate(split.labels[indices].tolist()):
        best = opinion.answer.logits[row].topk(2).indices.tolist()
        # a tie with the label counts as an error; the passes of a randomised model may outvote its first one
        wrong = best[1] if best[0] == label else best[0]
        found.append(None if opinion.failed[row] else label if opinion.correct[row] else wrong)
    return found


def _write(folder: Path, examples: Examples, split: Split, points: Tensor) -> Path:
    example_images.remove_examples(folder)
    for pair, point in zip(examples.pairs, points, strict=True):
        clean, adversarial = example_images.file_names(pair)
        write_atomically(folder / clean, _png(split.images[pair.index]))
        write_atomically(folder / adversarial, _png(point))
    write_atomically(folder / EXAMPLES_FILE, (examples.model_dump_json(indent=1) + "\n").encode())
    return folder


def _png(image: Float[Tensor, "channel height width"]) -> bytes:
    """The image as 8-bit PNG, grey or RGB."""
    from PIL import Image

    levels = (255 * image.clamp(0, 1)).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)
    written = io.BytesIO()
    picture.save(written, "PNG", optimize=True)
    return written.getvalue()
