"""How time and memory of `odebench leaderboard` grow with the number of result files.

The files are derived from the published results: more models, train seeds and data sets, with other letters, figures
and digests, so that the board grows in all directions. A fresh process reads each size; shown are its seconds by the
wall clock and of the CPU, and its peak memory.

    python benchmarks/speed/leaderboard_growth.py [--format html] [--sizes 1250,2500,5000]

The last line is CPU seconds a result at the last size, over those at the first. Where time is linear it is at most 1.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from odebench.leaderboard.read import read_results
from odebench.result.file import result_json, result_path
from odebench.result.outcome import FOOLED, ROBUST
from odebench.result.schema import EpsilonResult, Result, letter_figures, outcomes_digest

PUBLISHED = Path(__file__).parents[2] / "leaderboard" / "results"
SEEDS, MODELS = 2, 3
"""How many times over a data set of the board has the train seeds and the models of a published one."""


def hashed(text: str, copy: int) -> str:
    """Another sha256 for each copy; the same for the first."""
    return sha256(f"{copy} {text}".encode()).hexdigest() if copy else text


def varied(item: EpsilonResult, copy: int, offset: int) -> EpsilonResult:
    """The letters of one epsilon, where the attack fools some images more; which ones depends on image and copy."""
    code = next(iter(item.felled_by.legend))
    more = [
        outcome == ROBUST and sha256(f"{copy} {offset + index}".encode()).digest()[0] < 8
        for index, outcome in enumerate(item.outcomes)
    ]
    outcomes, felled = (
        "".join(new if fooled else old for old, fooled in zip(letters, more, strict=True))
        for letters, new in ((item.outcomes, FOOLED), (item.felled_by.codes(len(item.outcomes)), code))
    )
    return item.model_copy(
        update={
            "outcomes": outcomes,
            "felled_by": item.felled_by.model_copy(update={"letters": felled}),
            "figures": item.figures.model_copy(update=letter_figures(outcomes)),
        }
    )


def copied(result: Result, copy: int) -> Result:
    """A result as another train seed, another model or another data set could have given it; the first is as it was."""
    if copy == 0:
        return result
    seed, model, data = copy % SEEDS, copy // SEEDS % MODELS, copy // (SEEDS * MODELS)
    evaluation = result.evaluation
    spec, dataset = evaluation.model, evaluation.dataset
    arguments = dict(spec.arguments)
    arguments["train_seed"] = int(str(arguments.get("train_seed", 0))) + 100 * seed
    evaluation = evaluation.model_copy(
        update={
            "model": spec.model_copy(
                update={
                    "name": spec.name + f"-{model}" * bool(model),
                    "arguments": arguments,
                    "weights": hashed(spec.weights, copy),
                }
            ),
            "dataset": dataset.model_copy(update={"name": dataset.name + f"-{data}" * bool(data)}),
        }
    )
    found = result.found.model_copy(
        update={
            "dataset_sha256": hashed(result.found.dataset_sha256, data),
            "weights_sha256": hashed(result.found.weights_sha256, copy),
        }
    )
    epsilons = tuple(varied(item, copy, dataset.offset) for item in result.epsilons)
    return result.model_copy(
        update={
            "evaluation": evaluation,
            "run_key": evaluation.run_key,
            "found": found,
            "epsilons": epsilons,
            "outcomes_sha256": outcomes_digest(epsilons),
        }
    )


def write_results(folder: Path, published: Sequence[Result], first: int, last: int) -> None:
    """Writes the results from `first` to `last` of a board that has no end."""
    for index in range(first, last):
        copy, place = divmod(index, len(published))
        result = copied(published[place], copy)
        path = result_path(folder, result.evaluation)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(result_json(result), encoding="utf-8")


def read_by_a_process(folder: Path, format: str) -> dict[str, float]:
    """Seconds, CPU seconds and peak memory in MiB of `odebench leaderboard`, which must find no problem."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(folder), "--format", format]
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def as_child(folder: Path, format: str) -> None:
    """Runs the command and prints what it took. This process has no other child, so what children took is that one's;
    and it is small, because on Linux the peak of a process begins with that of the process that starts it."""
    command = [sys.executable, "-m", "odebench", "leaderboard", str(folder), "--format", format]
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stderr)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = spent.ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)
    print(json.dumps({"seconds": seconds, "cpu": spent.ru_utime + spent.ru_stime, "mib": peak}))


def main() -> None:
    options = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    options.add_argument("--sizes", default="1250,2500,5000", help="numbers of results (default %(default)s)")
    options.add_argument("--format", default="md", help="what the command writes (default %(default)s)")
    options.add_argument("--repeats", type=int, default=3, help="runs, of which the fastest counts (default 3)")
    options.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        as_child(given.child, given.format)
        return
    from bench import finish, show

    sizes = [int(size) for size in given.sizes.split(",")]
    published = [item.result for item in read_results([PUBLISHED])[0]]
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="leaderboard-growth-") as name:
        for before, size in zip([0, *sizes], sizes, strict=False):
            write_results(Path(name), published, before, size)
            runs = [read_by_a_process(Path(name), given.format) for _ in range(given.repeats)]
            found.append({key: min(run[key] for run in runs) for key in runs[0]})
    rows = [
        (
            size,
            one["seconds"],
            one["cpu"],
            1000 * one["cpu"] / size,
            f"{one['mib']:.0f}",
            f"{1024 * one['mib'] / size:.0f}",
        )
        for size, one in zip(sizes, found, strict=True)
    ]
    show(("results", "seconds", "CPU seconds", "ms a result", "peak MiB", "KiB a result"), rows)
    finish(found[-1]["cpu"] / sizes[-1] / (found[0]["cpu"] / sizes[0]))


if __name__ == "__main__":
    main()
