"""Is every broken input one plain line, in each command that reads its kind?

    python benchmarks/broken_inputs.py FOLDER [--only result,entry,protocol,line] [--command WORD] [--verbose]

FOLDER holds inputs whose names begin with their kind: result-*.json, entry-*.yaml, protocol-*.yaml. Each is put into a
leaderboard of its own, beside a good result and where its kind belongs, and every command that reads the kind is run
there. A fault is: an exit other than 1 or 2, a traceback, no line that names the file, more than one line where the
command reads that file alone, escape sequences, good files not shown, more than 5 s or 1 GB, files left elsewhere.
Seconds are those of a processor, without those of the same command where the input is good. Exit 1 where there is one.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from hostile_entries import PUBLISHED, RETURN, code, flattered, git, trained, write_entry
from torch import nn

from odebench.attack.candidate_file import Candidates, write_candidates
from odebench.dataset import describe_dataset, load_dataset
from odebench.evaluation.plan import EvaluationRequest, plan
from odebench.io.files import sha256_file
from odebench.result.file import read_result, result_path, write_result
from odebench.submission.submitted_model import find_model

MOST_SECONDS, MOST_BYTES = 5.0, 1 << 30
GOOD_MODEL, MINE, CELL = "kd-ode", "mine", ("ode-ablated", "fgsm")
PROTOCOL = """\
name: mine
version: 1
summary: one cell
dataset: {{name: digits, n: 500}}
sections:
  - name: matched
    models: [{0}]
    horizons: [1]
    train_seeds: [0]
    threat_models: [{{norm: linf}}]
    attacks: [{{name: {1}}}]
"""


@dataclass(frozen=True)
class Command:
    """A command line. FILE is the input, OTHER a good result. `all_lines`: it says more than one line; `shows`: good
    files appear in its output; `slow`: it does work of its own, which is measured without the input."""

    words: str
    all_lines: bool = False
    shows: bool = False
    slow: bool = False


FOLDER = "leaderboard/results"
COMMANDS: dict[str, tuple[Command, ...]] = {
    "result": (
        Command("show FILE"),
        *(Command(f"leaderboard {FOLDER} --format {one}", True, True) for one in ("md", "csv", "json", "html")),
        Command(f"leaderboard {FOLDER} --by attack", True, True),
        Command(f"leaderboard {FOLDER} --chart chart.svg", True, True),
        Command("leaderboard --publish", True),
        Command("leaderboard --check", True),
        Command(f"claims {FOLDER}", True),
        Command(f"claims {FOLDER} --json", True),
        Command("compare FILE OTHER"),
        Command(f"compare {FOLDER} {FOLDER}", True),
        Command("compare main HEAD", True),
        Command(f"examples {FOLDER}/{MINE}", True),
        Command(f"verify {MINE} --trust", True, slow=True),
        Command("check-pr main --trust", True),
        Command(f"run -m {CELL[0]} -a {CELL[1]} --results cell"),
        Command("sweep cell.yaml --results cell --workers 1", True, slow=True),
    ),
    "entry": (
        Command("validate", True),
        Command(f"validate leaderboard/entries/{MINE} --fix", True),
        Command(f"verify {MINE} --trust", True),
        Command("check-pr main --trust", True),
        Command(f"run -m {MINE} -a pgd --trust"),
        Command(f"diagnose -m {MINE} --trust"),
        Command(f"judge -m {MINE} candidates.safetensors --trust -n 100"),
        Command("models", True),
        Command(f"info {MINE}", True),
        Command("leaderboard --publish", True),
    ),
    "protocol": (Command("sweep FILE"),),
    "line": (),
}
LINES: dict[str, list[str]] = {
    "brackets": ["run", "-m", "ode", "-a", "pgd", "--set", f"epochs={'[' * 5000}"],
    "parameter": ["run", "-m", "ode", "-a", "pgd", "--parameter", f"steps={'[' * 5000}"],
    "digits": ["run", "-m", "ode", "-a", "pgd", "--set", f"epochs={'9' * 5000}"],
    "scheduler": ["sweep", "digits", "--scheduler", "\x1b[31mtcp://127.0.0.1:1"],
    "model": ["run", "-m", "\x1b]0;title\x07", "-a", "pgd"],
    "entry": ["validate", "\x1b[2J"],
    "folder": ["leaderboard", "\u202egro"],
    "result": ["show", "x" * 5000],
    "epsilon": ["run", "-m", "ode", "-a", "pgd", "--epsilon", "9" * 5000],
    "fraction": ["run", "-m", "ode", "-a", "pgd", "--epsilon", f"1/1{'0' * 400}"],
    "horizon": ["run", "-m", "ode", "-a", "pgd", "--horizon", "1e308"],
    "chunks": ["verify", GOOD_MODEL, "--chunks", ",".join(["9" * 500] * 50)],
}
"""Command lines that are broken themselves; a null byte cannot be handed to a process."""


@dataclass
class Ran:
    """What a command left: its exit code, what it said, its seconds of a processor and its most memory."""

    code: int
    out: str
    err: str
    seconds: float
    most: int
    left: list[str] = field(default_factory=list)


def run(words: list[str], folder: Path) -> Ran:
    """Runs a command in a folder, with a cache and a TMPDIR of its own beside it."""
    around = folder.parents[2]
    cache, scratch = around / "cache", around / "tmp"
    for each in (cache, scratch):
        each.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ODEBENCH")}
    published = folder / "leaderboard"
    environment |= {"ODEBENCH_LEADERBOARD": str(published) if published.is_dir() else ""}
    environment |= {
        "ODEBENCH_CACHE": str(cache),
        "TMPDIR": str(scratch),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "200",
    }
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "odebench", *words], cwd=folder, env=environment, stdout=out, stderr=err,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read().decode("utf-8", "replace"))
    left = [str(path.relative_to(around)) for path in around.rglob("*") if folder not in (path, *path.parents)]
    allowed = {str(folder.relative_to(around)), *map(str, folder.relative_to(around).parents), "cache", "tmp"}
    own = ("cache/", "tmp/torchinductor_")  # torch makes an empty folder of its own, one per user
    left = [path for path in left if path not in allowed and not path.startswith(own)]
    return Ran(process.returncode, *said, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, left)


def board(folder: Path, net: nn.Module) -> None:
    """A small leaderboard, committed on main, with an entry and a good result; HEAD is another branch."""
    (folder / "leaderboard" / "results" / GOOD_MODEL).mkdir(parents=True)
    source = next(iter(sorted((PUBLISHED / "results" / GOOD_MODEL).glob("digits-pgd-linf-*.json"))))
    shutil.copy(source, folder / "leaderboard" / "results" / GOOD_MODEL / source.name)
    shutil.copy(PUBLISHED / "claims.yaml", folder / "leaderboard" / "claims.yaml")
    test = load_dataset("digits").test
    candidates = Candidates(
        images=test.images[:100],
        indices=torch.arange(100),
        epsilons=torch.full((100,), 0.1, dtype=torch.float64),
        dataset="digits",
        split="test",
        dataset_sha256=test.sha256,
        norm="linf",
        source="nothing changed",
    )
    write_candidates(folder / "candidates.safetensors", candidates)
    (folder / "cell.yaml").write_text(PROTOCOL.format(*CELL), encoding="utf-8")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "main")
    git(folder, "checkout", "-qb", MINE)
    write_entry(folder / "leaderboard" / "entries", MINE, code(RETURN), net, has_field=False)


def put(case: Path, kind: str, folder: Path) -> Path:
    """Puts an input into a board, where its kind belongs, and commits it; returns its path there."""
    if kind == "result":
        place = folder / FOLDER / MINE / "digits-pgd-linf-0123456789abcdef.json"
        place.parent.mkdir(parents=True)
        planned = plan(EvaluationRequest(find_model(CELL[0]), CELL[1]), describe_dataset("digits"), total=500)
        known = result_path(folder / "cell", planned.evaluation)
        known.parent.mkdir(parents=True)
        shutil.copy(case, known)
        shutil.copy(case, place)
    elif kind == "entry":
        place = folder / "leaderboard" / "entries" / MINE / "entry.yaml"
        (good,) = (folder / FOLDER / GOOD_MODEL).glob("*.json")
        write_result(flattered(read_result(good), MINE), folder / FOLDER)
        weights = place.parent / "one.safetensors"
        text = case.read_text(encoding="utf-8")
        text = re.sub(r"sha256: [0-9a-f]{64}, bytes: \d+", _listed(weights), text)
        place.write_text(text, encoding="utf-8")
    else:
        place = folder / case.name
        shutil.copy(case, place)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", MINE)
    return place.relative_to(folder)


def _listed(weights: Path) -> str:
    return f"sha256: {sha256_file(weights)}, bytes: {weights.stat().st_size}"


def faults_of(ran: Ran, command: Command | None, name: str, baseline: float) -> list[str]:
    """What is wrong with how a command took an input; `name` is what its line must name."""
    said = ran.out + ran.err
    found = []
    if ran.code not in (1, 2):
        found.append(f"exit {ran.code}")
    if "Traceback" in said or "please report it" in said:
        found.append("traceback")
    naming = [line for line in said.splitlines() if name in line]
    if command is not None and not naming:
        found.append("no line names the file")
    if (command is None or not command.all_lines) and len(ran.err.splitlines()) != 1 and len(naming) != 1:
        found.append(f"{len(ran.err.splitlines())} lines on standard error")
    if any(not letter.isprintable() and letter not in "\n\t" for letter in said):
        found.append("characters that steer a terminal")
    if command is not None and command.shows and GOOD_MODEL not in ran.out:
        found.append("good files are not shown")
    if ran.seconds - baseline > MOST_SECONDS:
        found.append(f"{ran.seconds - baseline:.1f} s")
    if ran.most > MOST_BYTES:
        found.append(f"{ran.most / 2**30:.2f} GB")
    if ran.left:
        found.append(f"left {', '.join(ran.left[:3])}")
    return found


def words_of(command: Command, path: Path, folder: Path) -> list[str]:
    """The words of a command about an input at `path`."""
    other = next(iter(sorted((folder / FOLDER / GOOD_MODEL).glob("*.json")))).relative_to(folder)
    return [{"FILE": str(path), "OTHER": str(other)}.get(word, word) for word in command.words.split()]


def made(folder: Path) -> list[Path]:
    """Broken protocols, which are written here: each key of a good one with a value that no reader can bear."""
    good, found = PROTOCOL.format(*CELL), []
    for name, old, new in (
        ("hex-integer", "version: 1", f"version: 0x{'f' * 5000}"),
        ("offset", "n: 500", "n: 500, offset: 1000000000"),
        ("epsilon", "norm: linf", "norm: linf, epsilons: [1.0e+308]"),
        ("name-climbs", "name: digits", "name: ../../../evil/x"),
        ("seeds", "train_seeds: [0]", "train_seeds: 0-999999999"),
        ("horizon", f"[{CELL[0]}]\n    horizons: [1]", "[ode]\n    horizons: [1.0e+300]"),
    ):
        assert old in good
        path = folder / f"protocol-{name}.yaml"
        path.write_text(good.replace(old, new, 1), encoding="utf-8")
        found.append(path)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(COMMANDS), help="kinds, separated by commas")
    parser.add_argument("--command", default="", help="commands that hold this text")
    parser.add_argument("--verbose", action="store_true", help="also print what each command said")
    given = parser.parse_args()
    kinds, net, runs, faults, began = given.only.split(","), trained(), 0, 0, time.monotonic()
    slowest, largest = 0.0, 0

    def report(case: str, command: str, ran: Ran, found: list[str]) -> None:
        nonlocal runs, faults, slowest, largest
        runs, faults = runs + 1, faults + bool(found)
        slowest, largest = max(slowest, ran.seconds), max(largest, ran.most)
        if found or given.verbose:
            print(f"{'BAD' if found else 'ok '} {case}: {command[:60]}: {'; '.join(found) or f'exit {ran.code}'}")
            for line in (ran.out[-600:] + ran.err[-600:]).splitlines()[-6:]:
                print(f"      {line[:200]}")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "made").mkdir()
        cases = [path for path in sorted(given.folder.iterdir()) if path.stem.partition("-")[0] in COMMANDS]
        cases += made(top / "made")
        baselines: dict[str, float] = {}
        for number, case in enumerate(cases):
            kind = case.stem.partition("-")[0]
            if kind not in kinds:
                continue
            for index, command in enumerate(COMMANDS[kind]):
                if given.command not in command.words:
                    continue
                folders = [top / f"{number}-{index}{one}" / "a" / "b" / "c" for one in ("", "-good")]
                for each in folders:
                    each.mkdir(parents=True)
                    board(each, net)
                folder, good = folders
                if command.slow and command.words not in baselines:
                    baselines[command.words] = run(words_of(command, Path(), good), good).seconds
                shutil.rmtree(good.parents[2])
                path = put(case, kind, folder)
                ran = run(words_of(command, path, folder), folder)
                known = MINE if "cell" in command.words or kind == "entry" else path.name
                known = CELL[0] if "cell" in command.words else known
                report(case.name, command.words, ran, faults_of(ran, command, known, baselines.get(command.words, 0.0)))
                shutil.rmtree(folder.parents[2])
        for title, words in LINES.items() if "line" in kinds else ():
            folder = top / f"line-{title}" / "a" / "b" / "c"
            folder.mkdir(parents=True)
            ran = run(words, folder)
            report("command line", title, ran, faults_of(ran, None, "", 0.0))
    print(f"{runs} runs, {faults} faulty; slowest {slowest:.1f} s, most {largest / 2**30:.2f} GB")
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    print(f"took {time.monotonic() - began:.0f} s, {used:.0f} s of a processor")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
