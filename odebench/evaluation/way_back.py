"""Whether the gradients of modules that were handed over can be taken, and what they need for it."""

from __future__ import annotations

from collections.abc import Mapping

from odebench.dataset import Split
from odebench.errors import ModelError
from odebench.evaluation.checks.model import useless_gradients
from odebench.evaluation.loading import LoadedModels
from odebench.evaluation.verdict import VERDICT_BATCH
from odebench.model.classifier import Classifier
from odebench.numerics.precision import full_fp32
from odebench.numerics.seeding import seeded
from odebench.progress import Progress
from odebench.protocol.spec import Evaluation

_FEW = 4


def unfreeze_where_needed(models: LoadedModels, evaluation: Evaluation, images: Split, progress: Progress) -> None:
    """Unfreezes a module that was handed over, and its sources, if its gradient cannot be taken otherwise; says so.

    It is asked about the batch that the verdict will ask about first: what a module remembers of its first question
    must not depend on this one.
    """
    sources = {f"source {name}": source for name, source in models.sources.items()}
    for name, classifier in {evaluation.model.name: models.classifier, **sources}.items():
        with seeded(evaluation.attack.seed):
            unfrozen = classifier.unfreeze_if_needed(images.images[:VERDICT_BATCH].to(classifier.device))
        if unfrozen:
            progress.say(f"{name}: no gradient without those of its parameters, so every gradient costs theirs too")


def check_sources(sources: Mapping[str, Classifier], images: Split) -> None:
    """Raises ModelError, with the name of the source, where one gives no logits or its gradient cannot be taken: this
    is known before any attack."""
    points, labels = images.images[:_FEW], images.labels[:_FEW]
    for name, source in sources.items():
        try:
            with source.frozen(), full_fp32(), seeded(0):
                source.unfreeze_if_needed(points.to(source.device))
                useless_gradients(source, points, labels)
        except ModelError as error:
            raise ModelError(f"source {name}: {error}") from error
