"""Committed results repeated: what is asked of each set of weights, and how the answers compare."""

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
from odebench.submission.claims import claim_title, is_about
from odebench.submission.entry import ENTRY_FILE, Entry
from odebench.submission.finding import Finding, finding
from odebench.submission.verification import agreement
from odebench.submission.verification.acceptance import acceptance_notes, refusals
from odebench.submission.verification.agreement import ComparedChunk
from odebench.submission.verification.committed_results import Committed
from odebench.submission.verification.jobs import Inspected, Job, RepeatedAttack
from odebench.submission.verification.sampling import block, rows_of

FALSE_ALARMS = 0.05
"""The probability that any of the comparisons of shares fails although nothing is wrong."""


@dataclass(frozen=True)
class Comparison:
    """The compared chunks, the findings about them, and notes for readers."""

    chunks: tuple[ComparedChunk, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


class Rerun:
    """Committed results to repeat, grouped by the weights that they rest on. `without_results` are plans of weights
    that have no results. `chunks` are the chunks of each data set, None for all that a result holds; `draw` is the seed
    that drew them, None if the user named them."""

    def __init__(
        self,
        folder: Path,
        entry: Entry,
        chosen: Sequence[Committed],
        without_results: Sequence[Plan],
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
        self.groups = [(items[0].plan, items) for items in groups.values()] + [(plan, []) for plan in without_results]

    def jobs(self, progress: Progress, *, sources: bool = False) -> list[Job]:
        """A job for each set of weights, which is fetched now. With `sources`, missing transfer sources are trained."""
        found = []
        for base, items in self.groups:
            weights = weights_of(base, progress)
            attacks = [replace(each, plan=replace(each.plan, weights=weights)) for each in self._attacks(items)]
            needed = [source for each in attacks for source in each.plan.sources if not source.itself]
            recipes = {source.recipe.key: source.recipe for source in needed}
            for recipe in recipes.values() if sources else ():
                find_or_train(recipe, self._data(base), progress=progress)
            found.append(Job(replace(self._diagnosis(base), weights=weights), tuple(attacks)))
        return found

    def compare(self, inspected: Sequence[Inspected], *, device: str) -> Comparison:
        """How the answers to the jobs, in their order, compare with the committed results; `device` is the name that
        results would give to the device asked."""
        pairs: list[tuple[Committed, ComparedChunk]] = []
        findings: list[Finding] = []
        notes: list[str] = []
        for (base, items), answer in zip(self.groups, inspected, strict=True):
            whose = _whose(base)
            findings += refusals(self.where, whose, answer)
            notes += acceptance_notes(whose, answer)
            if answer.error is None:
                pairs += self._compared_chunks(items, answer)
                notes += _other_sources(items, answer)
        chunks = tuple(chunk for _, chunk in pairs)
        findings += [*_outcome_findings(chunks), *self._share_findings(pairs)]
        notes += [*_one_sided_notes(chunks), *_other_devices(pairs, device)]
        return Comparison(chunks, tuple(findings), tuple(dict.fromkeys(notes)))

    def _data(self, item: Committed | Plan) -> Dataset:
        return self.data[item.evaluation.dataset.name]

    def _rows(self, item: Committed) -> list[slice]:
        return rows_of(item, self.chunks[item.evaluation.dataset.name], len(self._data(item).test), draw=self.draw)

    def _wide(self, item: Committed) -> Plan:
        """The plan on all test images, so that any chunk can be attacked: outcomes do not depend on their number."""
        images = item.evaluation.dataset.model_copy(update={"n": len(self._data(item).test)})
        return replace(item.plan, evaluation=item.evaluation.model_copy(update={"dataset": images}))

    def _attacks(self, items: Sequence[Committed]) -> list[RepeatedAttack]:
        """The attacks behind results of the same weights: each evaluation and chunk once, whatever the results hold."""
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
            RepeatedAttack(plan, tuple(rows[key][first] for first in sorted(rows[key])), threads[key])
            for key, plan in plans.items()
        ]

    def _diagnosis(self, base: Plan) -> Plan:
        """The plan of a quick diagnosis of a plan's model, as it was trained, on the first of the chunks."""
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

    def _compared_chunks(
        self, items: Sequence[Committed], answer: Inspected
    ) -> Iterator[tuple[Committed, ComparedChunk]]:
        asked = [(each.plan.evaluation.run_key, rows.start) for each in self._attacks(items) for rows in each.rows]
        found = dict(zip(asked, answer.outcomes, strict=True))
        for item in items:
            evaluation, n = item.evaluation, item.evaluation.dataset.n
            key = self._wide(item).evaluation.run_key
            for rows in self._rows(item):
                held = rows.start < n
                stop = min(rows.stop, n) if held else rows.stop
                texts = [text[: stop - rows.start] for text in found[key, rows.start].outcomes]
                stored = [each.outcomes[rows.start : stop] if held else each.outcomes for each in item.result.epsilons]
                exact = held and Flag.RANDOMISED not in answer.flags
                yield (
                    item,
                    ComparedChunk(
                        dataset=evaluation.dataset.name,
                        train_horizon=evaluation.train_horizon,
                        horizon=evaluation.horizon,
                        train_seed=item.weights[2],
                        attack=evaluation.attack.name,
                        effort=evaluation.attack.effort,
                        norm=evaluation.threat_model.norm,
                        result=str(item.path),
                        chunk=rows.start // block(evaluation),
                        images=stop - rows.start,
                        letters=sum(map(len, texts)) if exact else 0,
                        differ=agreement.differing(texts, stored) if exact else 0,
                        flatter=agreement.one_sided(texts, stored) if exact else 0,
                        shares=tuple(map(agreement.shares_of, evaluation.threat_model.epsilons, texts, stored)),
                    ),
                )

    def _share_findings(self, pairs: Sequence[tuple[Committed, ComparedChunk]]) -> Iterator[Finding]:
        """A finding for each share that differs from a committed or claimed one by more than chance explains."""
        asked: list[tuple[str, str, str, float, int, float, int]] = []
        for _, chunk in pairs:
            for each in chunk.shares if not chunk.letters else ():
                at = f"chunk {chunk.chunk} at epsilon {radius(each.epsilon)}"
                for kind, mine, theirs in (
                    ("clean", each.clean_found, each.clean_committed),
                    ("robust", each.robust_found, each.robust_committed),
                ):
                    asked.append((chunk.result, "figure", f"{at}: {kind} accuracy", mine, chunk.images, theirs, each.n))
        for claim in self.entry.claims:
            same = [chunk for item, chunk in pairs if is_about(claim, self.entry, item.evaluation)]
            images = sum(chunk.images for chunk in same)
            shares = [(chunk.images, each) for chunk in same for each in chunk.shares if each.epsilon == claim.epsilon]
            for name, value in claim.figures() if images else ():
                kind = name.removesuffix("_accuracy")
                mine = sum(n * getattr(each, f"{kind}_found") for n, each in shares) / images
                what = f"the claim about {claim_title(claim)}: {kind} accuracy"
                asked.append((self.where, "claim", what, mine, images, value, claim.n))
        for file, rule, name, mine, n, theirs, n_theirs in asked:
            said = agreement.disagreement(name, mine, n, theirs, n_theirs, confidence=1 - FALSE_ALARMS / len(asked))
            if said is not None:
                yield finding(file, None, rule, said)


def _whose(plan: Plan) -> str:
    at = "" if plan.origin.horizon is None else f" T={plan.origin.horizon:g}"
    return f"{plan.evaluation.dataset.name}{at} seed {plan.origin.train_seed}"


def _outcome_findings(chunks: Sequence[ComparedChunk]) -> Iterator[Finding]:
    """A finding for each result in which more outcomes differ than other hardware explains."""
    for result in dict.fromkeys(chunk.result for chunk in chunks):
        same = [chunk for chunk in chunks if chunk.result == result]
        letters, differ = sum(chunk.letters for chunk in same), sum(chunk.differ for chunk in same)
        if differ > agreement.TOLERATED * letters:
            numbers = ", ".join(str(chunk.chunk) for chunk in same if chunk.differ)
            said = (
                f"{differ} of {letters} letters differ from those found now (chunks {numbers}), more than "
                f"{agreement.TOLERATED:.0%}: was it edited, or found with other code? Run it again with --force"
            )
            yield finding(result, None, "letters", said)


def _one_sided_notes(chunks: Sequence[ComparedChunk]) -> Iterator[str]:
    """A note if all differing outcomes make the committed results look better: hardware changes them both ways."""
    differ = sum(chunk.differ for chunk in chunks)
    if differ >= agreement.ONE_SIDED_FROM and sum(chunk.flatter for chunk in chunks) == differ:
        yield (
            f"all {differ} letters that differ are robust in the committed results and not now; other hardware moves "
            "letters both ways: look at them, and verify with --full"
        )


def _other_devices(pairs: Sequence[tuple[Committed, ComparedChunk]], device: str) -> Iterator[str]:
    """A note for each device other than this one whose results have differing outcomes."""
    here = _without_index(device)
    others = {_without_index(item.result.found.device) for item, chunk in pairs if chunk.differ} - {here}
    for other in sorted(others):
        named = other if "(" in other else f"a {other} that was not named"
        yield f"letters that differ were found on {named}, and now on {here}"


def _without_index(device: str) -> str:
    return re.sub(r"^(\w+):\d+", r"\1", device)


def _other_sources(items: Sequence[Committed], answer: Inspected) -> Iterator[str]:
    """A note for each transfer source whose weights here are not those that a result was found with."""
    now = {name: sha256 for each in answer.outcomes for name, sha256 in each.sources_sha256.items()}
    for item in items:
        for name, sha256 in item.result.found.sources_sha256.items():
            if name in now and not name.startswith("self") and now[name] != sha256:
                yield f"{item.path}: the source {name} is {now[name][:12]} here, was {sha256[:12]}: letters may differ"
