"""Differences between two sets of results: outcomes that changed, figures, and paired intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from odebench.io.canonical_json import canonical_json
from odebench.leaderboard.grouping import group
from odebench.leaderboard.union import StoredResult
from odebench.numerics.statistics import paired_interval
from odebench.result.outcome import CORRECT, ROBUST
from odebench.result.schema import Figure, Result, figure


@dataclass(frozen=True)
class PairedChange:
    """How a share of the same images changed from the first to the second result: second minus first, paired."""

    first: Figure
    second: Figure
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class EpsilonDifference:
    """What differs at one radius on the images that both judged; `letters` counts them by change, such as "r>f"."""

    epsilon: float
    images: int
    letters: Mapping[str, int]
    clean_accuracy: PairedChange
    robust_accuracy: PairedChange


@dataclass(frozen=True)
class ComparedPair:
    """Two results, whether their run keys (`same_evaluation`) and weights are equal, and where they differ."""

    first: StoredResult
    second: StoredResult
    same_evaluation: bool
    same_weights: bool
    epsilons: tuple[EpsilonDifference, ...]

    @property
    def changed(self) -> int:
        """The number of letters that differ, over all epsilons."""
        return sum(sum(item.letters.values()) for item in self.epsilons)


@dataclass(frozen=True)
class Difference:
    """Two sets of results: the pairs, and the results that only one of them has."""

    pairs: tuple[ComparedPair, ...]
    only_first: tuple[StoredResult, ...]
    only_second: tuple[StoredResult, ...]


def difference(first: Sequence[StoredResult], second: Sequence[StoredResult]) -> Difference:
    """Pairs of results of the same evaluation, then of those that differ only in weights, images and epsilons.

    Where each side has results of one model only, and not of the same, evaluations that differ in the model are paired
    too. Two single results on the same data are a pair whatever else differs.
    """
    pairs: list[tuple[StoredResult, StoredResult]] = []
    left, right = list(first), list(second)
    models = [{item.evaluation.model.name for item in side} for side in (first, second)]
    two_models = [_without_model] if models[0] != models[1] and {len(names) for names in models} == {1} else []
    for key in (
        lambda item: item.result.run_key,
        _without_weights,
        *two_models,
        *([_data] if len(first) == len(second) == 1 else []),
    ):
        matched, left, right = _matched(left, right, key)
        pairs += matched
    found = [_pair(one, other) for one, other in pairs]
    return Difference(
        pairs=tuple(sorted(found, key=lambda pair: _order(pair.first))),
        only_first=tuple(sorted(left, key=_order)),
        only_second=tuple(sorted(right, key=_order)),
    )


def _matched(
    first: Sequence[StoredResult], second: Sequence[StoredResult], key: Callable[[StoredResult], str]
) -> tuple[list[tuple[StoredResult, StoredResult]], list[StoredResult], list[StoredResult]]:
    """Pairs of equal keys with an image in common, largest first, and what is left on either side."""
    others = group(sorted(second, key=_size), key)
    pairs: list[tuple[StoredResult, StoredResult]] = []
    left: list[StoredResult] = []
    for item in sorted(first, key=_size):
        candidates = others.get(key(item), [])
        match = next((other for other in candidates if _comparable(item.result, other.result)), None)
        if match is None:
            left.append(item)
        else:
            candidates.remove(match)
            pairs.append((item, match))
    return pairs, left, [item for items in others.values() for item in items]


def _pair(first: StoredResult, second: StoredResult) -> ComparedPair:
    one, other = first.result, second.result
    start, end = _shared(one, other)
    offsets = [result.evaluation.dataset.offset for result in (one, other)]
    rows = [slice(start - offset, end - offset) for offset in offsets]
    by_epsilon = {item.epsilon: item.outcomes for item in other.epsilons}
    return ComparedPair(
        first=first,
        second=second,
        same_evaluation=one.run_key == other.run_key,
        same_weights=one.found.weights_sha256 == other.found.weights_sha256,
        epsilons=tuple(
            _at_epsilon(item.epsilon, item.outcomes[rows[0]], by_epsilon[item.epsilon][rows[1]])
            for item in one.epsilons
            if item.epsilon in by_epsilon
        ),
    )


def _at_epsilon(epsilon: float, before: str, after: str) -> EpsilonDifference:
    kinds = Counter(f"{old}>{new}" for old, new in zip(before, after, strict=True) if old != new)
    return EpsilonDifference(
        epsilon=epsilon,
        images=len(before),
        letters=dict(sorted(kinds.items())),
        clean_accuracy=_change(before, after, CORRECT),
        robust_accuracy=_change(before, after, ROBUST),
    )


def _change(before: str, after: str, counted: str) -> PairedChange:
    n = len(before)
    held = [(old in counted, new in counted) for old, new in zip(before, after, strict=True)]
    gained, lost = held.count((False, True)), held.count((True, False))
    low, high = paired_interval(gained, lost, n)
    first, second = (figure(sum(pair[side] for pair in held), n) for side in (0, 1))
    return PairedChange(first, second, (gained - lost) / n, low, high)


def _comparable(first: Result, second: Result) -> bool:
    """Whether two results share data, an image and an epsilon."""
    start, end = _shared(first, second)
    epsilons = {item.epsilon for item in first.epsilons} & {item.epsilon for item in second.epsilons}
    return first.found.dataset_sha256 == second.found.dataset_sha256 and start < end and bool(epsilons)


def _shared(first: Result, second: Result) -> tuple[int, int]:
    data = [result.evaluation.dataset for result in (first, second)]
    return max(item.offset for item in data), min(item.offset + item.n for item in data)


def _without_weights(item: StoredResult) -> str:
    """The evaluation without its weights, images and epsilons."""
    left_out = {"model": {"weights"}, "threat_model": {"epsilons"}, "dataset": {"n", "offset"}}
    return canonical_json(item.evaluation.model_dump(mode="json", exclude=left_out))


def _without_model(item: StoredResult) -> str:
    """The evaluation without the model (but for its train seed), train horizon, sources, images and epsilons."""
    evaluation = item.evaluation
    left_out = {"threat_model": {"epsilons"}, "attack": {"sources"}, "dataset": {"n", "offset"}}
    plain = evaluation.model_dump(mode="json", exclude=left_out)
    return canonical_json(plain | {"model": evaluation.model.train_seed, "train_horizon": None})


def _data(item: StoredResult) -> str:
    evaluation = item.evaluation
    return canonical_json([evaluation.dataset.name, evaluation.dataset.split, evaluation.threat_model.norm])


def _size(item: StoredResult) -> tuple[int, str]:
    return -item.evaluation.dataset.n, item.result.run_key


def _order(item: StoredResult) -> tuple[str, ...]:
    evaluation = item.evaluation
    return (
        evaluation.dataset.name,
        evaluation.dataset.split,
        evaluation.model.name,
        evaluation.threat_model.norm,
        evaluation.attack.name,
        item.result.run_key,
    )
