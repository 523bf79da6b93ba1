"""Diagnoses every published model, so that none is shown as not examined (odebench diagnose, the quick checks).

    python benchmarks/diagnose_published.py [--results FOLDER] [--only TEXT] [--images N]
    python benchmarks/diagnose_published.py --summary

One result for each (weights, horizon, solver) of the published results: the first chunk, linf at the middle epsilon. It
is what `odebench diagnose -n 100` writes for that model. Models with code of their own are run, so read them before.
What is there already is not made again, and what cannot be made is a line at the end and exit code 1. Data sets other
than digits must be at hand (ODEBENCH_DATA). `--summary` runs nothing and prints what the diagnoses found.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import torch

from odebench.attack.builtin import QUICK_DIAGNOSIS
from odebench.cli.trust import trusted_model
from odebench.dataset import Dataset, describe_dataset, load_dataset
from odebench.errors import OdebenchError
from odebench.evaluation.evaluate import run
from odebench.evaluation.plan import DEFAULT_CHUNK, Plan, Slice, plan, planned_again, request_of
from odebench.protocol.spec import Evaluation
from odebench.result.file import read_result, result_files
from odebench.result.schema import Check, Result

PUBLISHED = Path(__file__).resolve().parents[1] / "leaderboard" / "results"
DATASETS = ("digits", "fashion-mnist", "cifar10-jpeg")
"""In this order: the cheapest first."""


def main() -> None:
    """Diagnoses, one line a model with its flags and seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=PUBLISHED)
    parser.add_argument("--only", default="", help="models whose line begins with this text")
    parser.add_argument("--images", type=int, default=DEFAULT_CHUNK)
    parser.add_argument("--summary", action="store_true")
    asked = parser.parse_args()
    if asked.summary:
        print_summary(asked.results)
        return
    torch.set_num_threads(1)
    data: dict[str, Dataset] = {}
    failed: list[str] = []
    for title, evaluation in identities().items():
        if not title.startswith(asked.only):
            continue
        name = evaluation.dataset.name
        if name not in data:
            data = {name: load_dataset(name)}
        started = time.perf_counter()
        try:
            found, _, new = run(diagnosis(evaluation, data[name], asked.images), data[name], results=asked.results)
        except OdebenchError as error:
            failed.append(f"{title}: {error}")
            print(failed[-1], flush=True)
            continue
        flags = ", ".join(found.flags) or "no flag"
        print(f"{title}: {flags}; {f'{time.perf_counter() - started:.0f} s' if new else 'there already'}", flush=True)
    if failed:
        raise SystemExit("\n".join([f"{len(failed)} not diagnosed:", *failed]))


def print_summary(folder: Path) -> None:
    """A line a check: how many models pass, flag and skip it, and the range of its figure and of k."""
    found = [result for path in result_files(folder) if _is_diagnosis(result := read_result(path))]
    by_check: dict[tuple[int, str], list[Check]] = defaultdict(list)
    for check in (check for result in found for check in result.checks):
        by_check[check.id, check.name].append(check)
    print(f"{len(found)} models; doubt about {sum(bool(result.doubt) for result in found)}")
    for (number, name), checks in sorted(by_check.items()):
        status = Counter(check.status for check in checks)
        figures = [check.figure for check in checks if check.figure is not None]
        counts = [check.k for check in checks if check.k is not None]
        seen = f"k {min(counts)} to {max(counts)}" if counts else f"{min(figures):.4g} to {max(figures):.4g}"
        counted = ", ".join(f"{status[each]} {each}" for each in ("pass", "flag", "skipped"))
        print(f"{number:>2} {name:27} {counted}; {seen}")


def _is_diagnosis(result: Result) -> bool:
    return result.evaluation.attack.name == QUICK_DIAGNOSIS.name


def identities() -> dict[str, Evaluation]:
    """An evaluation for each published (weights, horizon, solver), by a line that names it."""
    found: dict[str, Evaluation] = {}
    for path in result_files(PUBLISHED):
        one = read_result(path).evaluation
        title = (
            f"{one.dataset.name} {one.model.name} T={one.horizon} ({one.train_horizon}) {one.solver} "
            f"seed {one.model.train_seed} {one.model.weights[:8]}"
        )
        found.setdefault(title, one)
    order = {name: place for place, name in enumerate(DATASETS)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[1].dataset.name, len(order)), item[0])))


def diagnosis(evaluation: Evaluation, data: Dataset, images: int) -> Plan:
    """The plan of the quick diagnosis of a published model. Raises UsageError where its result names another model."""
    described = describe_dataset(data.name)
    model = trusted_model(evaluation.model.name, trust=True)
    planned_again(evaluation, model, described, total=len(data.test))
    request = replace(
        request_of(evaluation, model),
        attack=QUICK_DIAGNOSIS.name,
        images=Slice(n=images),
        norm=None,
        epsilons=None,
        attack_seed=0,
        parameters={},
        sources=None,
        surrogate=None,
        precision="fp32",
    )
    return plan(request, described, total=len(data.test))


if __name__ == "__main__":
    main()
