"""Which chunks of images, and which results, a verification looks at: drawn from one seed, known to nobody before."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from odebench.errors import UsageError
from odebench.evaluation.plan import DEFAULT_CHUNK
from odebench.protocol.spec import VERDICT_BATCH, Evaluation
from odebench.submission.entry import Entry
from odebench.submission.verification.committed_results import Committed, as_trained, can_be_repeated

DRAWN = 2


def block(evaluation: Evaluation) -> int:
    """The images that are asked again together: whole chunks, and whole batches of the verdict."""
    return math.lcm(evaluation.chunk, VERDICT_BATCH)


def chunks_of(total: int, size: int = DEFAULT_CHUNK) -> int:
    """How many chunks a number of images has."""
    return math.ceil(total / size)


def drawn_chunks(draw: int, totals: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Two chunks of each data set's test images, of which there are `totals`."""
    found = {}
    for name, total in totals.items():
        count = chunks_of(total)
        found[name] = tuple(sorted(random.Random(f"{draw}/{name}").sample(range(count), min(DRAWN, count))))
    return found


def given_chunks(chunks: Sequence[int], totals: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The chunks that somebody names, for each data set. Raises UsageError for one that there is not."""
    for name, total in totals.items():
        last = chunks_of(total) - 1
        if strange := [each for each in chunks if not 0 <= each <= last]:
            raise UsageError(f"{name} has chunks 0 to {last} of {DEFAULT_CHUNK} test images, no chunk {strange[0]}")
    return {name: tuple(sorted(set(chunks))) for name in totals}


def drawn_results(draw: int, entry: Entry, results: Sequence[Committed]) -> list[Committed]:
    """The results of one train seed for each data set and horizon, of the model as it was trained; and where others of
    its seeds hold more images, one such result, so that letters are compared wherever the chunks lie."""
    usual = [each for each in results if as_trained(entry, each.evaluation) and can_be_repeated(each.evaluation)]
    found = []
    for cell in sorted({each.weights[:2] for each in usual}, key=str):
        same = [each for each in usual if each.weights[:2] == cell]
        chance = random.Random(f"{draw}/{cell}")
        seed = chance.choice(sorted({each.weights[2] for each in same}))
        of_seed = [each for each in same if each.weights[2] == seed]
        most = max(each.evaluation.dataset.n for each in same)
        found += of_seed
        if all(each.evaluation.dataset.n < most for each in of_seed):
            found.append(chance.choice([each for each in same if each.evaluation.dataset.n == most]))
    return found


def all_results(results: Sequence[Committed]) -> list[Committed]:
    """All results of which chunks can be asked again: on the test images from the first on."""
    wanted = ("test", 0)
    return [
        each
        for each in results
        if can_be_repeated(each.evaluation)
        and (each.evaluation.dataset.split, each.evaluation.dataset.offset) == wanted
    ]


def drawn_weights(draw: int, entry: Entry, results: Sequence[Committed]) -> list[tuple[str, float | None, int]]:
    """Data set, train horizon and seed of listed weights, one for each data set and horizon that no result speaks of:
    their model is to be asked, too."""
    known = {each.weights[:2] for each in results}
    listed = sorted({(each.dataset, each.horizon) for each in entry.weights} - known, key=str)
    found = []
    for cell in listed:
        seeds = sorted({each.train_seed for each in entry.weights if (each.dataset, each.horizon) == cell})
        found.append((*cell, random.Random(f"{draw}/{cell}").choice(seeds)))
    return found


def rows_of(item: Committed, chunks: Sequence[int] | None, total: int, *, draw: int | None = None) -> list[slice]:
    """The rows of the chunks, or with None of all that the result holds, in whole blocks of `total` images.

    With `draw` the chunks are drawn ones: where a result holds none of them, one that it holds is drawn as well, so
    that no result is so short that its letters are never looked at.
    """
    size, held = block(item.evaluation), chunks_of(item.evaluation.dataset.n, block(item.evaluation))
    if chunks is None:
        numbers = list(range(held))
    else:
        numbers = sorted({each % chunks_of(total, size) for each in chunks})
        if draw is not None and all(each >= held for each in numbers):
            numbers.insert(0, random.Random(f"{draw}/{item.evaluation.run_key}").randrange(held))
    return [slice(each * size, min((each + 1) * size, total)) for each in numbers]
