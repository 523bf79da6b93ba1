"""The figures that an entry claims: what can be wrong with them, and which results they are about."""

from __future__ import annotations

from collections.abc import Iterator

from odebench.attack.definition import load_attack
from odebench.attack.registry import ATTACKS
from odebench.dataset.registry import DATASETS
from odebench.errors import UsageError
from odebench.evaluation.plan import DEFAULT_CHUNK, Slice
from odebench.io.yaml_document import Document, Where
from odebench.protocol.spec import Evaluation, check_epsilon, radius
from odebench.result.schema import EpsilonResult, Figure, Result
from odebench.submission.entry import ClaimedFigure, Entry
from odebench.submission.finding import Finding, finding_at
from odebench.submission.weights import horizon_problem


def claim_findings(entry: Entry, document: Document) -> Iterator[Finding]:
    """All that is wrong with the claims of an entry, without any result at hand."""
    seen: list[dict[str, object]] = []
    for index, claim in enumerate(entry.claims):
        where: Where = ("claims", index)
        identity = claim.model_dump(mode="json", exclude={"clean_accuracy", "robust_accuracy"})
        if identity in seen:
            first = document.line(("claims", seen.index(identity)))
            said = f"line {first} claims something about the same evaluation; remove one"
            yield finding_at(document, where, "claim", said)
        seen.append(identity)
        if entry.use(claim.dataset) is None:
            said = f"dataset {claim.dataset!r} is not among the entry's data sets; add it there"
            yield finding_at(document, (*where, "dataset"), "dataset", said)
        else:
            yield from _one_claim(claim, entry, document, where)


def _one_claim(claim: ClaimedFigure, entry: Entry, document: Document, where: Where) -> Iterator[Finding]:
    if (problem := horizon_problem(entry.trained_for(claim.dataset), claim.horizon)) is not None:
        yield finding_at(document, (*where, "horizon"), "horizon", problem)
    elif entry.contributed is not None and not entry.weights_for(claim.dataset, claim.horizon, claim.train_seed):
        said = "there are no weights of this data set, horizon and train seed; list them, or remove the claim"
        yield finding_at(document, where, "claim", said)
    if claim.clean_accuracy is not None and claim.robust_accuracy > claim.clean_accuracy:
        said = f"robust_accuracy {claim.robust_accuracy:g} cannot be above clean_accuracy {claim.clean_accuracy:g}"
        yield finding_at(document, (*where, "robust_accuracy"), "claim", said)
    try:
        check_epsilon(claim.epsilon, claim.norm)
    except UsageError as error:
        yield finding_at(document, (*where, "epsilon"), "claim", str(error))
    try:
        ATTACKS.entry(claim.attack)
        if (attack := ATTACKS.load_built_in(claim.attack)) is not None:
            attack.norm(claim.norm)
            attack.complete(claim.parameters)
    except UsageError as error:
        yield finding_at(document, (*where, "attack"), "claim", str(error))
    data = DATASETS.load_built_in(claim.dataset)
    if data is not None and "test" in data.sizes:
        try:
            Slice(n=claim.n, chunk=DEFAULT_CHUNK).of(data.name, data.sizes["test"])
        except UsageError as error:
            yield finding_at(document, (*where, "n"), "claim", str(error))


def is_about(claim: ClaimedFigure, entry: Entry, evaluation: Evaluation) -> bool:
    """Whether a claim of an entry is about an evaluation: of the first n test images under the claimed attack, at the
    horizon and with the solver of the training. Raises UsageError for unknown parameters."""
    images, attack, use = evaluation.dataset, evaluation.attack, entry.use(claim.dataset)
    asked = (entry.id, claim.dataset, "test", claim.n, 0, claim.norm, claim.attack, claim.horizon, claim.horizon)
    found = (evaluation.model.name, images.name, images.split, images.n, images.offset, evaluation.threat_model.norm)
    return (
        asked == (*found, attack.name, evaluation.train_horizon, evaluation.horizon)
        and evaluation.solver == (use and entry.solver_for(use))
        and evaluation.model.arguments.get("train_seed") == claim.train_seed
        and claim.epsilon in evaluation.threat_model.epsilons
        and attack.parameters == load_attack(claim.attack).complete(claim.parameters)
    )


def contradictions(claim: ClaimedFigure, result: Result) -> list[str]:
    """One sentence for each figure of a claim that lies outside the interval of a result that it is about."""
    item: EpsilonResult = next(one for one in result.epsilons if one.epsilon == claim.epsilon)
    said = []
    for name, value in claim.figures():
        figure: Figure = getattr(item.figures, name)
        if not figure.low <= value <= figure.high:
            said.append(
                f"{name} is claimed to be {value:g}, {result.evaluation.attack.name} at {radius(claim.epsilon)} found "
                f"{figure.value:g} [{figure.low:.3g}, {figure.high:.3g}]"
            )
    return said


def claim_title(claim: ClaimedFigure) -> str:
    """A claim in a few words, for messages."""
    at = "" if claim.horizon is None else f" T={claim.horizon:g}"
    return (
        f"{claim.dataset}{at} seed {claim.train_seed}, {claim.attack} in {claim.norm} at {radius(claim.epsilon)}, "
        f"n={claim.n}"
    )
