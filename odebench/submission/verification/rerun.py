"""Committed results looked at again: what is asked of each set of weights, and how the answers compare."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from odebench.attack.builtin import QUICK_DIAGNOSIS
from odebench.dataset import Dataset, describe_dataset
from odebench.evaluation.loading import weights_of
from odebench.evaluation.plan import DEFAULT_CHUNK, Plan, threat_model
from odebench.model.training import find_or_train
from odebench.progress import Progress
from odebench.protocol.spec import AttackSpec, ThreatModel, radius
from odebench.result.outcome import Flag
from odebench.submission.entry import ENTRY_FILE, Entry, speaks_of
from odebench.submission.finding import Finding, finding
from odebench.submission.verification.acceptance import acceptance_notes, refusals
from odebench.submission.verification.agreement import (
    ONE_WAY,
    TOLERATED,
    ComparedChunk,
    differing,
    disagreement,
    one_sided,
    shares_of,
)
from odebench.submission.verification.committed_results import Committed, words
from odebench.submission.verification.inspection import Attack, Inspected, Job
from odebench.submission.verification.sampling import rows_of

DOUBT = 0.05
"""How likely one of all comparisons of shares may fail where nothing is wrong."""


@dataclass(frozen=True)
class Comparison:
    """What came of it: cells, and what is wrong or worth knowing."""

    cells: tuple[ComparedChunk, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


class Rerun:
    """The committed results that are looked at, by the weights that they rest on. `silent` are plans of weights that no
    result speaks of, `chunks` those of each data set, None for all that a result holds; `draw` is the seed that drew
    them, None where somebody named them."""

    def __init__(
        self,
        folder: Path,
        entry: Entry,
        chosen: Sequence[Committed],
        silent: Sequence[Plan],
        chunks: Mapping[str, tuple[int, ...] | None],
        data: Mapping[str, Dataset],
        *,
        draw: int | None = None,
        data_dir: Path | None = None,
    ) -> None:
        self.draw, self.data_dir = draw, data_dir
        self.where, self.entry, self.chunks, self.data = str(folder / ENTRY_FILE), entry, chunks, data
        groups: dict[tuple[object, ...], list[Committed]] = {}
        for item in chosen:
            groups.setdefault((*item.weights, item.plan.origin.key), []).append(item)
        self.groups = [(items[0].plan, items) for items in groups.values()] + [(plan, []) for plan in silent]

    def jobs(self, progress: Progress, *, sources: bool = False) -> list[Job]:
        """A job for each set of weights, which are fetched now. With `sources` those of transfer are trained, if they
        must be."""
        found = []
        for base, items in self.groups:
            weights = weights_of(base, progress)
            attacks = [(replace(plan, weights=weights), attack) for plan, attack in self._attacks(items)]
            recipes = {each.recipe.key: each.recipe for plan, _ in attacks for each in plan.sources if not each.itself}
            for recipe in recipes.values() if sources else ():
                find_or_train(recipe, self._data(base), progress=progress)
            found.append(Job(replace(self._admission(base), weights=weights), tuple(attacks)))
        return found

    def compare(self, inspected: Sequence[Inspected], *, device: str) -> Comparison:
        """What the answers to the jobs say, in their order; `device` is what results would call the one asked on."""
        pairs: list[tuple[Committed, ComparedChunk]] = []
        findings: list[Finding] = []
        notes: list[str] = []
        for (base, items), one in zip(self.groups, inspected, strict=True):
            whose = _whose(base)
            findings += refusals(self.where, whose, one)
            notes += acceptance_notes(whose, one)
            if one.error is None:
                pairs += self._cells(items, one)
                notes += _other_sources(items, one)
        cells = tuple(cell for _, cell in pairs)
        findings += [*_moved(cells), *self._distant(pairs)]
        notes += [*_one_way(cells), *_other_devices(pairs, device)]
        return Comparison(cells, tuple(findings), tuple(dict.fromkeys(notes)))

    def _data(self, item: Committed | Plan) -> Dataset:
        return self.data[item.evaluation.dataset.name]

    def _rows(self, item: Committed) -> list[slice]:
        return rows_of(item, self.chunks[item.evaluation.dataset.name], len(self._data(item).test), draw=self.draw)

    def _wide(self, item: Committed) -> Plan:
        """The plan on all test images, of which any chunk can be asked: letters do not depend on how many there are."""
        part = item.evaluation.dataset.model_copy(update={"n": len(self._data(item).test)})
        return replace(item.plan, evaluation=item.evaluation.model_copy(update={"dataset": part}))

    def _attacks(self, items: Sequence[Committed]) -> list[tuple[Plan, Attack]]:
        """What results of the same weights ask, each evaluation and chunk once, however many images they hold."""
        plans: dict[str, Plan] = {}
        threads: dict[str, int] = {}
        rows: dict[str, dict[int, slice]] = {}
        for item in items:
            wide = self._wide(item)
            key = wide.evaluation.run_key
            plans.setdefault(key, wide)
            threads.setdefault(key, item.result.found.threads)
            rows.setdefault(key, {}).update({each.start: each for each in self._rows(item)})
        return [
            (plan, Attack(plan.evaluation, tuple(rows[key][first] for first in sorted(rows[key])), threads[key]))
            for key, plan in plans.items()
        ]

    def _admission(self, base: Plan) -> Plan:
        """The plan of a quick diagnosis of a plan's model, as it was trained, on the first chunk looked at."""
        evaluation, origin = base.evaluation, base.origin
        name = evaluation.dataset.name
        first = next(iter(self.chunks[name] or ()), 0) * DEFAULT_CHUNK
        definition = describe_dataset(name, data_dir=self.data_dir)
        threat = ThreatModel(norm=evaluation.threat_model.norm, epsilons=(evaluation.threat_model.middle_epsilon,))
        if definition.epsilons:
            threat = threat_model(QUICK_DIAGNOSIS.name, definition, norm=None, epsilons=None)
        n = min(DEFAULT_CHUNK, len(self._data(base).test) - first)
        changes = {
            "dataset": evaluation.dataset.model_copy(update={"n": n, "offset": first}),
            "threat_model": threat,
            "attack": AttackSpec(name=QUICK_DIAGNOSIS.name, parameters=QUICK_DIAGNOSIS.complete(), seed=0),
            "chunk": DEFAULT_CHUNK,
            "horizon": origin.horizon,
            "solver": origin.solver,
            "precision": "fp32",
        }
        return replace(base, evaluation=evaluation.model_copy(update=changes), sources=())

    def _cells(self, items: Sequence[Committed], one: Inspected) -> Iterator[tuple[Committed, ComparedChunk]]:
        asked = [(plan.evaluation.run_key, rows.start) for plan, attack in self._attacks(items) for rows in attack.rows]
        found = dict(zip(asked, one.letters, strict=True))
        for item in items:
            evaluation, n = item.evaluation, item.evaluation.dataset.n
            key = self._wide(item).evaluation.run_key
            for rows in self._rows(item):
                held = rows.start < n
                stop = min(rows.stop, n) if held else rows.stop
                texts = [text[: stop - rows.start] for text in found[key, rows.start].outcomes]
                stored = [each.outcomes[rows.start : stop] if held else each.outcomes for each in item.result.epsilons]
                exact = held and Flag.RANDOMISED not in one.flags
                yield (
                    item,
                    ComparedChunk(
                        dataset=evaluation.dataset.name,
                        train_horizon=evaluation.train_horizon,
                        horizon=evaluation.horizon,
                        train_seed=item.weights[2],
                        attack=evaluation.attack.name,
                        norm=evaluation.threat_model.norm,
                        result=str(item.path),
                        chunk=rows.start // DEFAULT_CHUNK,
                        images=stop - rows.start,
                        letters=sum(map(len, texts)) if exact else 0,
                        differ=differing(texts, stored) if exact else 0,
                        flatter=one_sided(texts, stored) if exact else 0,
                        shares=tuple(map(shares_of, evaluation.threat_model.epsilons, texts, stored)),
                    ),
                )

    def _distant(self, pairs: Sequence[tuple[Committed, ComparedChunk]]) -> Iterator[Finding]:
        """Shares found now that are too far from committed ones, or from claims, for their numbers of images."""
        asked: list[tuple[str, str, str, float, int, float, int]] = []
        for _, cell in pairs:
            for each in cell.shares if not cell.letters else ():
                at = f"chunk {cell.chunk} at epsilon {radius(each.epsilon)}"
                for kind, mine, theirs in (
                    ("clean", each.clean_found, each.clean_committed),
                    ("robust", each.robust_found, each.robust_committed),
                ):
                    asked.append((cell.result, "figure", f"{at}: {kind} accuracy", mine, cell.images, theirs, each.n))
        for claim in self.entry.claims:
            same = [cell for item, cell in pairs if speaks_of(claim, self.entry, item.evaluation)]
            images = sum(cell.images for cell in same)
            shares = [(cell.images, each) for cell in same for each in cell.shares if each.epsilon == claim.epsilon]
            for name, value in claim.figures() if images else ():
                kind = name.removesuffix("_accuracy")
                mine = sum(n * getattr(each, f"{kind}_found") for n, each in shares) / images
                what = f"the claim about {words(claim)}: {kind} accuracy"
                asked.append((self.where, "claim", what, mine, images, value, claim.n))
        for file, rule, name, mine, n, theirs, n_theirs in asked:
            said = disagreement(name, mine, n, theirs, n_theirs, confidence=1 - DOUBT / len(asked))
            if said is not None:
                yield finding(file, None, rule, said)


def _whose(plan: Plan) -> str:
    at = "" if plan.origin.horizon is None else f" T={plan.origin.horizon:g}"
    return f"{plan.evaluation.dataset.name}{at} seed {plan.origin.train_seed}"


def _moved(cells: Sequence[ComparedChunk]) -> Iterator[Finding]:
    """A finding for each result of whose letters more moved than hardware explains."""
    for result in dict.fromkeys(cell.result for cell in cells):
        same = [cell for cell in cells if cell.result == result]
        letters, differ = sum(cell.letters for cell in same), sum(cell.differ for cell in same)
        if differ > TOLERATED * letters:
            chunks = ", ".join(str(cell.chunk) for cell in same if cell.differ)
            said = (
                f"{differ} of {letters} letters are others than those found now (chunks {chunks}), more than "
                f"{TOLERATED:.0%}: was it edited, or found with other code? Run it again with --force"
            )
            yield finding(result, None, "letters", said)


def _one_way(cells: Sequence[ComparedChunk]) -> Iterator[str]:
    """A note where all letters that differ make the committed results look better: hardware moves them both ways."""
    differ = sum(cell.differ for cell in cells)
    if differ >= ONE_WAY and sum(cell.flatter for cell in cells) == differ:
        yield (
            f"all {differ} letters that differ are robust in the committed results and not now; other hardware moves "
            "letters both ways: look at them, and verify with --full"
        )


def _other_devices(pairs: Sequence[tuple[Committed, ComparedChunk]], device: str) -> Iterator[str]:
    """A note for each device other than this one on which letters were found that differ now."""
    here = _without_index(device)
    others = {_without_index(item.result.found.device) for item, cell in pairs if cell.differ} - {here}
    for other in sorted(others):
        named = other if "(" in other else f"a {other} that was not named"
        yield f"letters that differ were found on {named}, and now on {here}"


def _without_index(device: str) -> str:
    return re.sub(r"^(\w+):\d+", r"\1", device)


def _other_sources(items: Sequence[Committed], one: Inspected) -> Iterator[str]:
    """A note for each source whose weights at hand are not those that a result was found with."""
    now = {name: sha256 for each in one.letters for name, sha256 in each.sources_sha256.items()}
    for item in items:
        for name, sha256 in item.result.found.sources_sha256.items():
            if name in now and not name.startswith("self") and now[name] != sha256:
                yield f"{item.path}: the source {name} is {now[name][:12]} here, was {sha256[:12]}: letters may differ"
