"""Makes the checks 17, 20 and 21 on every published model, which are honest, on validation images: none may flag.

    python benchmarks/honest_checks.py [--output FILE] [--only TEXT]

One line for each (weights, horizon, solver) and norm of a published result: the figures of the checks and a mark where
one flags. `--output` keeps the figures as JSON lines; what is in it is not computed again. The thresholds in
odebench/evaluation/checks were chosen so that none of these flags and the controls of benchmarks/controls.py do.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from odebench.dataset import Dataset, load_dataset
from odebench.errors import OdebenchError
from odebench.evaluation.checks.gradient import gradient_fidelity
from odebench.evaluation.checks.usefulness import useful_gradient, zero_gradients
from odebench.evaluation.verdict import Judge
from odebench.io.tensor_file import load_weights, read_tensors
from odebench.model.classifier import Classifier
from odebench.model.training import build
from odebench.protocol.recipe import Recipe
from odebench.protocol.spec import Evaluation
from odebench.result.file import read_result, result_files
from odebench.submission.load_model import load_model

PUBLISHED = Path(__file__).resolve().parents[1] / "leaderboard"
IMAGES = 100


def main() -> None:
    """Prints a line for each identity, and how many flag."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", default="", help="identities whose line begins with this text")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    done = _done(asked.output)
    data: dict[str, Dataset] = {}
    flagged = 0
    for title, evaluation in identities().items():
        if not title.startswith(asked.only):
            continue
        if title not in done:
            name = evaluation.dataset.name
            if name not in data:
                data[name] = load_dataset(name)
            done[title] = figures(evaluation, data[name])
            if asked.output is not None:
                with asked.output.open("a") as file:
                    file.write(json.dumps({"title": title, **done[title]}) + "\n")
        flagged += bool(done[title].get("flags"))
        print(title, json.dumps(done[title]), flush=True)
    print(f"{flagged} of {len(done)} flag")


def _done(path: Path | None) -> dict[str, dict]:  # type: ignore[type-arg]
    if path is None or not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line.pop("title"): line for line in lines}


def identities() -> dict[str, Evaluation]:
    """An evaluation for each published (weights, horizon, solver) and norm, by a line that names it."""
    found = {}
    for path in result_files(PUBLISHED / "results"):
        one = read_result(path).evaluation
        title = (
            f"{one.dataset.name} {one.model.name} seed {one.model.train_seed} T={one.horizon} "
            f"({one.train_horizon}) {one.solver} {one.threat_model.norm} {one.model.weights[:8]}"
        )
        found.setdefault(title, one)
    return dict(sorted(found.items()))


def figures(evaluation: Evaluation, data: Dataset) -> dict:  # type: ignore[type-arg]
    """The figures of the checks on the validation images of one identity."""
    assert data.validation is not None
    try:
        classifier = classifier_of(evaluation, data)
    except OdebenchError as error:
        return {"left_out": str(error)}
    threat = evaluation.threat_model
    images, labels = data.validation.images[:IMAGES], data.validation.labels[:IMAGES]
    alone = evaluation.solver is not None and evaluation.solver.couples_batch
    with classifier.frozen():
        correct = torch.from_numpy(Judge(classifier, alone=alone).clean(images, labels) == "r")
        images, labels = images[correct], labels[correct]
        norm, epsilon = threat.norm, threat.middle_epsilon
        started = time.perf_counter()
        checks = [
            gradient_fidelity(classifier, images, norm=norm, epsilon=epsilon, alone=alone),
            useful_gradient(classifier, images, norm=norm, epsilon=epsilon),
            zero_gradients(classifier, images, labels, norm=norm, epsilon=epsilon),
        ]
        seconds = time.perf_counter() - started
    return {
        "seconds": round(seconds, 2),
        "flags": [check.id for check in checks if check.status == "flag"],
        "skipped": [check.why for check in checks if check.status == "skipped"],
        **{f"check {check.id}": [check.figure, check.evidence] for check in checks},
    }


def classifier_of(evaluation: Evaluation, data: Dataset) -> Classifier:
    """The published model of an evaluation, built from its recipe or by the code of its entry. Raises OdebenchError."""
    asked = evaluation.model
    if (PUBLISHED / "entries" / asked.name / "model.py").is_file():
        seed, horizon = int(str(asked.train_seed)), evaluation.train_horizon
        own = load_model(asked.name, data.name, horizon=horizon, seed=seed, trust=True)
        return Classifier(own, n_classes=data.n_classes, horizon=evaluation.horizon, solver=evaluation.solver)
    tensors, metadata = read_tensors(PUBLISHED / "weights" / f"{evaluation.model.weights}.safetensors")
    module = build(Recipe.model_validate_json(json.dumps(metadata["recipe"])))
    load_weights(module, tensors, source=PUBLISHED)
    return Classifier(module, n_classes=data.n_classes, horizon=evaluation.horizon, solver=evaluation.solver)


if __name__ == "__main__":
    main()
