"""The study's answers in a sentence per question, made from claims and ranked tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from odebench.analysis.claims import Claim, ClaimVerdict
from odebench.leaderboard.rank import ranks, significantly_better
from odebench.leaderboard.table import Row, Table
from odebench.protocol.spec import radius
from odebench.render.claims import OVERVIEW, name_of, points_text, seeds_so_far
from odebench.render.markdown_tables import horizon_name
from odebench.render.summary_table import best_cell, robust_text

_QUESTIONS = (
    ("Does distillation help?", (("clean-gain", "gain in accuracy"), ("robust-gain", "gain in robust accuracy")), ""),
    (
        "Does a longer horizon T help?",
        (("slope-plain", "the plain model"), ("slope-distilled", "the distilled model")),
        " per doubling",
    ),
)
_NO = (ClaimVerdict.ruled_out, ClaimVerdict.reversed)


def verdict(
    claims: Sequence[Claim], tables: Sequence[Table], *, adversarial: Callable[[str], bool] = lambda _: False
) -> list[tuple[str, str]]:
    """Questions and answers. `tables` are ranked ones, one per data set; `adversarial` tells whether a model by name
    was trained on adversarial images."""
    by_name = {claim.registered.name: claim for claim in claims}
    datasets = list(dict.fromkeys(claim.registered.dataset for claim in claims))
    found = [
        (question, answer)
        for question, parts, unit in _QUESTIONS
        if (answer := _claimed(by_name, datasets, parts, unit))
    ]
    if any(table.usual for table in tables):
        found += [("What does help?", _helps(tables, adversarial)), ("Which model is best?", _best(tables))]
    return found + ([("How sure is this?", _certainty(claims))] if found and claims else [])


def _claimed(by_name: dict[str, Claim], datasets: Sequence[str], parts: Iterable[tuple[str, str]], unit: str) -> str:
    sentences, words = [], []
    for dataset in datasets:
        known = [
            (claim, of)
            for name, of in parts
            if (claim := by_name.get(f"{dataset}-{name}")) and claim.estimate is not None
        ]
        words += [claim.word for claim, _ in known]
        each = [
            f"{of} {points_text(claim.estimate)} points{unit} ({claim.word.value})"
            for claim, of in known
            if claim.estimate is not None
        ]
        sentences += [f"on {dataset} {', '.join(each)}"] if each else []
    if not words:
        return ""
    supported = [word is ClaimVerdict.supported for word in words]
    if all(supported):
        lead = "Yes"
    elif any(supported):
        lead = "In part"
    else:
        lead = "No" if all(word in _NO for word in words) else "Not shown"
    return f"{lead}: {'; '.join(sentences)}."


def _helps(tables: Sequence[Table], adversarial: Callable[[str], bool]) -> str:
    """The Neural ODEs that are significantly better than kd-ode, per data set, those trained on adversarial images
    first."""
    sentences = []
    for table in tables:
        rows = table.usual
        twin = next((number for number, row in enumerate(rows) if row.name == "kd-ode"), None)
        better = [rows[one] for one, other in sorted(significantly_better(table)) if other == twin]
        odes = [row for row in better if any(horizon is not None for horizon in row.cells)]
        kinds = (("training on adversarial images", True), ("other methods", False))
        for kind, trained in kinds:
            named = [f"{row.model} {_robust(row)}" for row in odes if adversarial(row.model) is trained]
            sentences += [f"{kind}, on {table.dataset}: {', '.join(named)}"] if named else []
        if odes and twin is not None:
            sentences[-1] += f" (kd-ode: {_robust(rows[twin], best_cell(odes[0]).horizon)})"
    if not sentences:
        return "Nothing yet: no Neural ODE is significantly more robust than kd-ode."
    return _sentence(f"Robust accuracy rises with {'; with '.join(sentences)}")


def _best(tables: Sequence[Table]) -> str:
    """The first two ranked models of each table, and whether they are significantly apart."""
    sentences = []
    for table in tables:
        order = [number for number, _ in sorted(ranks(table).items(), key=lambda item: (item[1], item[0]))][:2]
        if not order:
            continue
        at = f"on {table.dataset} ({table.norm} {radius(table.epsilon)})"
        first, *others = (f"{table.usual[number].model} {_robust(table.usual[number])}" for number in order)
        apart = tuple(order) in significantly_better(table)
        than = f", significantly better than {others[0]}" if apart else f", not significantly better than {others[0]}"
        sentences.append(f"{at} {first}{than if others else ''}")
    return _sentence("; ".join(sentences)) if sentences else "No model is ranked yet."


def _certainty(claims: Sequence[Claim]) -> str:
    questions = [claim for claim in claims if name_of(claim) in OVERVIEW]
    seeds = {claim.registered.dataset: seeds_so_far(claim).strip(" ()") for claim in questions if claim.estimate}
    run = ", ".join(f"{dataset}: {text}" for dataset, text in seeds.items() if text)
    rest = [name for name in dict.fromkeys(claim.registered.dataset for claim in questions) if name not in seeds]
    parts = ["95% intervals cover train seeds and images" + (f" ({run})" if run else "")]
    parts += [f"the first two questions are not run on {', '.join(rest)}"] if rest else []
    return _sentence("; ".join([*parts, "a stronger attack may lower robust accuracy"]))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _robust(row: Row, horizon: float | None = None) -> str:
    """The robust accuracy of a row at a horizon, if it has that, else at its best."""
    cell = best_cell(row) if horizon is None else row.cells.get(horizon, best_cell(row))
    at = "" if cell.horizon is None else f" at {horizon_name(cell.horizon)}"
    return f"{robust_text(cell)}%{at}"
