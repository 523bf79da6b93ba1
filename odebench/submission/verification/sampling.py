"""The chunks of images and the results that a verification looks at, drawn from a seed that nobody knows beforehand."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from odebench.errors import UsageError
from odebench.evaluation.plan import DEFAULT_CHUNK
from odebench.protocol.spec import Evaluation
from odebench.submission.entry import Entry
from odebench.submission.verification.committed_results import Committed, as_trained, can_be_repeated

DRAWN = 2
"""The number of chunks drawn per data set."""


def block(evaluation: Evaluation) -> int:
    """The number of images attacked again together: about 100, in whole chunks of the evaluation."""
    return evaluation.chunk * max(1, round(DEFAULT_CHUNK / evaluation.chunk))


def chunks_of(total: int, size: int = DEFAULT_CHUNK) -> int:
    """The number of chunks of `size` images, the last of which may be smaller."""
    return math.ceil(total / size)


def drawn_chunks(draw: int, totals: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Two chunks of the test images of each data set, by its name; `totals` are the numbers of images."""
    found = {}
    for name, total in totals.items():
        count = chunks_of(total)
        found[name] = tuple(sorted(random.Random(f"{draw}/{name}").sample(range(count), min(DRAWN, count))))
    return found


def given_chunks(chunks: Sequence[int], totals: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The chunks that the user names, for each data set. Raises UsageError for one that does not exist."""
    for name, total in totals.items():
        last = chunks_of(total) - 1
        if strange := [each for each in chunks if not 0 <= each <= last]:
            raise UsageError(f"{name} has chunks 0 to {last} of {DEFAULT_CHUNK} test images, no chunk {strange[0]}")
    return {name: tuple(sorted(set(chunks))) for name in totals}


def drawn_results(draw: int, entry: Entry, results: Sequence[Committed]) -> list[Committed]:
    """The results of one drawn train seed for each data set and horizon, of the model as it was trained; if other seeds
    have results with more images, also one of these, so that outcomes are compared wherever the chunks lie."""
    usual = [each for each in results if as_trained(entry, each.evaluation) and can_be_repeated(each.evaluation)]
    found = []
    for trained_on in sorted({each.weights[:2] for each in usual}, key=str):
        same = [each for each in usual if each.weights[:2] == trained_on]
        chance = random.Random(f"{draw}/{trained_on}")
        seed = chance.choice(sorted({each.weights[2] for each in same}))
        of_seed = [each for each in same if each.weights[2] == seed]
        most = max(each.evaluation.dataset.n for each in same)
        found += of_seed
        if all(each.evaluation.dataset.n < most for each in of_seed):
            found.append(chance.choice([each for each in same if each.evaluation.dataset.n == most]))
    return found


def all_results(results: Sequence[Committed]) -> list[Committed]:
    """All results of which chunks can be attacked again: those on test images that begin with the first."""
    parts = [(each, each.evaluation.dataset) for each in results if can_be_repeated(each.evaluation)]
    return [each for each, part in parts if (part.split, part.offset) == ("test", 0)]


def drawn_weights(draw: int, entry: Entry, results: Sequence[Committed]) -> list[tuple[str, float | None, int]]:
    """Data set, train horizon and seed of listed weights, drawn for each data set and horizon without results."""
    known = {each.weights[:2] for each in results}
    listed = sorted({(each.dataset, each.horizon) for each in entry.weights} - known, key=str)
    found = []
    for trained_on in listed:
        seeds = sorted({each.train_seed for each in entry.weights if (each.dataset, each.horizon) == trained_on})
        found.append((*trained_on, random.Random(f"{draw}/{trained_on}").choice(seeds)))
    return found


def rows_of(item: Committed, chunks: Sequence[int] | None, total: int, *, draw: int | None = None) -> list[slice]:
    """The rows of the blocks that overlap the given chunks of 100 of `total` images; with None, of all blocks that the
    result holds.

    With `draw` the chunks were drawn: if the result holds none of them, one that it holds is drawn as well, so that the
    outcomes of short results are compared, too.
    """
    size, held = block(item.evaluation), chunks_of(item.evaluation.dataset.n, block(item.evaluation))
    if chunks is None:
        numbers = list(range(held))
    else:
        ends = [(DEFAULT_CHUNK * each, min(DEFAULT_CHUNK * (each + 1), total) - 1) for each in chunks]
        numbers = sorted({number for first, last in ends for number in range(first // size, last // size + 1)})
        if draw is not None and all(each >= held for each in numbers):
            numbers.insert(0, random.Random(f"{draw}/{item.evaluation.run_key}").randrange(held))
    return [slice(each * size, min((each + 1) * size, total)) for each in numbers]
