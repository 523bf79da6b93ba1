"""The study's answers in a sentence per question, made from claims and ranked tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from odebench.analysis.claims import Claim, ClaimVerdict
from odebench.leaderboard.rank import ranks, significantly_better
from odebench.leaderboard.table import Cell, Row, Table
from odebench.protocol.spec import radius
from odebench.render.claims import OVERVIEW, name_of, points_text
from odebench.render.gain_map import what_replaces_it, where_it_helps
from odebench.render.markdown_tables import horizon_name
from odebench.render.summary_table import best_cell, robust_text

_QUESTIONS = (
    (
        "Does distillation help?",
        "it changes",
        (("clean-gain", "accuracy"), ("robust-gain", "robust accuracy")),
    ),
    (
        "Does a longer horizon T help?",
        "each doubling of T changes",
        (
            ("slope-plain", "the robust accuracy of the plain model"),
            ("slope-distilled", "that of the distilled model"),
        ),
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
    place = {name: number for number, name in enumerate(datasets)}
    some = (table for table in tables if any(row.best is not None for row in table.usual))
    ranked = sorted(some, key=lambda table: place.get(table.dataset, len(place)))
    gains = [claim.registered for claim in claims if name_of(claim) == "robust-gain"]
    distilled, plain = (arm.model for arm in gains[0].arms) if gains else ("", "")
    found = [("Do Neural ODEs withstand attacks?", _withstand(ranked, plain))]
    distillation, horizon = (
        (question, _claimed(by_name, datasets, verb, parts)) for question, verb, parts in _QUESTIONS
    )
    found += [distillation, ("Where does it help, and where does it hurt?", where_it_helps(claims)), horizon]
    if ranked:
        helps = _helps(ranked, distilled, adversarial, what_replaces_it(claims)) if distilled else ""
        found += [("What does help?", helps), ("Which model is most robust?", _best(ranked))]
    found = [(question, answer) for question, answer in found if answer]
    return found + ([("How sure is this?", _certainty(claims))] if found and claims else [])


def _withstand(tables: Sequence[Table], plain: str) -> str:
    """Whether the plain Neural ODE keeps its accuracy: no where its interval under attack lies below the clean one, and
    never yes, since a stronger attack may come; with the accuracies of it and of the best model without a horizon."""
    sentences = []
    answers: dict[str, list[str]] = {}
    for table in tables:
        rows = [row for row in table.usual if row.best is not None]
        shown = [row for row in rows if row.name == plain] + [row for row in rows if not _is_ode(row)][:1]
        kept = [
            f"for {row.name}{'' if _is_ode(row) else ' (not an ODE)'} "
            f"from {100 * best_cell(row).clean_accuracy.value:.1f}% to {_robust(row)}"
            for row in shown
        ]
        if kept:
            sentences.append(f"{_at(table)} accuracy falls {', '.join(kept)}")
            fell = any(row.name == plain and _falls(best_cell(row)) for row in shown)
            answers.setdefault("no" if fell else "not shown", []).append(table.dataset)
    some = len(answers) > 1
    lead = "; ".join(word + f" on {_listed(datasets)}" * some for word, datasets in answers.items())
    return _sentence(f"{lead}: {'; '.join(sentences)}") if sentences else ""


def _falls(cell: Cell) -> bool:
    return cell.robust_accuracy.high < cell.clean_accuracy.low


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _claimed(by_name: dict[str, Claim], datasets: Sequence[str], verb: str, parts: Iterable[tuple[str, str]]) -> str:
    sentences, words, interim = [], [], False
    for dataset in datasets:
        each = []
        for name, of in parts:
            claim = by_name.get(f"{dataset}-{name}")
            if claim is not None and claim.estimate is not None:
                words.append(claim.word)
                interim |= len(claim.seeds) < len(claim.registered.train_seeds)
                each.append(f"{of} by {points_text(claim.estimate)} points ({_word(claim)})")
        sentences += [(dataset, f"{verb} {', '.join(each)}")] if each else []
    if not words:
        return ""
    tested = [dataset for dataset, _ in sentences]
    supported = [word is ClaimVerdict.supported for word in words]
    if all(supported):
        lead = "Yes"
    elif any(supported):
        lead = "In part"
    else:
        lead = "No" if all(word in _NO for word in words) else "Not shown"
    scope = f" on {_listed(tested)}" + (", so far" if interim else "")
    text = "; ".join(f"on {dataset} {said}" if len(tested) > 1 else said for dataset, said in sentences)
    return f"{lead}{scope}: {text}."


def _word(claim: Claim) -> str:
    margin = claim.registered.margin
    of = "1 point" if margin == 1 else f"{margin:g} points"
    return f"a gain of {of} is ruled out" if claim.word is ClaimVerdict.ruled_out else claim.word.value


def _helps(tables: Sequence[Table], distilled: str, adversarial: Callable[[str], bool], more: str) -> str:
    """The Neural ODEs that are significantly better than the distilled one, per data set, those trained on adversarial
    images first; then `more`."""
    sentences = []
    for table in tables:
        rows = table.usual
        twin = next((number for number, row in enumerate(rows) if row.name == distilled), None)
        better = [rows[one] for one, other in sorted(significantly_better(table)) if other == twin]
        odes = [row for row in better if _is_ode(row)]
        if twin is None or not odes:
            continue
        kinds = (("adversarial training", True), ("other methods", False))
        lifts = [
            f"{kind} to {', '.join(f'{_robust(row)} ({row.model})' for row in same)}"
            for kind, trained in kinds
            if (same := [row for row in odes if adversarial(row.model) is trained])
        ]
        start = _robust(rows[twin], best_cell(odes[0]).horizon)
        sentences.append(f"{_at(table)} robust accuracy rises from {start} ({distilled}) with {', with '.join(lifts)}")
    if not any(row.name == distilled for table in tables for row in table.usual):
        return ""
    sentences += [more] if more else []
    if not sentences:
        return f"Nothing yet: no Neural ODE is significantly more robust than {distilled}."
    return _sentence("; ".join(sentences))


def _best(tables: Sequence[Table]) -> str:
    """The first two ranked models of each table, and whether they are significantly apart."""
    sentences = []
    for table in tables:
        order = [number for number, _ in sorted(ranks(table).items(), key=lambda item: (item[1], item[0]))][:2]
        first, *others = (f"{table.usual[number].model} ({_robust(table.usual[number])})" for number in order)
        apart = "significantly" if tuple(order) in significantly_better(table) else "not significantly"
        than = f", {apart} more than {others[0]}" if others else ""
        sentences.append(f"{_at(table)} {first}{than}")
    return _sentence("; ".join(sentences))


def _certainty(claims: Sequence[Claim]) -> str:
    questions = [claim for claim in claims if name_of(claim) in OVERVIEW]
    run = [claim for claim in questions if claim.estimate is not None]
    seeds = {
        claim.registered.dataset: f"{len(claim.seeds)} of {len(claim.registered.train_seeds)} training seeds on "
        f"{claim.registered.dataset}"
        for claim in run
        if len(claim.seeds) < len(claim.registered.train_seeds)
    }
    tested = dict.fromkeys(claim.registered.dataset for claim in run)
    untested = [claim.registered.dataset for claim in questions if claim.registered.dataset not in tested]
    parts = [f"interim: {', '.join(seeds.values())}"] if seeds else []
    if tested and untested:
        parts.append(f"distillation and T are tested on {', '.join(tested)} only")
    parts.append("95% intervals cover images and training seeds, not stronger attacks")
    return _sentence("; ".join(parts))


def _is_ode(row: Row) -> bool:
    return any(horizon is not None for horizon in row.cells)


def _at(table: Table) -> str:
    return f"on {table.dataset} ({table.norm} {radius(table.epsilon)})"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _robust(row: Row, horizon: float | None = None) -> str:
    """The robust accuracy of a row at a horizon, if it has that, else at its best."""
    cell = best_cell(row)
    if horizon is not None and horizon in row.cells and row.cells[horizon].ranked:
        cell = row.cells[horizon]
    at = "" if cell.horizon is None else f" at {horizon_name(cell.horizon)}"
    return f"{robust_text(cell)}%{at}"
