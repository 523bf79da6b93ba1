"""Do mutated results, protocols, candidates, image archives and command lines cause anything but a plain answer?

    python benchmarks/fuzz_readers.py [--cases 10000] [--first 0] [--seed 0] [--cpu-seconds 300] [--only result,...]

Results are changed value by value, most with all that must agree, so that half pass the schema, and handed to all that
reads them: board, records, page, claims, comparison, data frame, `show`, and what `verify` reads of an entry. Protocols
are laid out, candidates and image archives read, command lines run in this process. A case fails with an exception that
is none of ours, after more than 5 seconds, or where it leaves a file outside its folder; all together may not take more
than 1 GB. The same seed makes a case again; `--first` begins with a later one.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import random
import resource
import sys
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fuzz_entries import TIME_LIMIT_SECONDS, TOKENS, limited, mutated
from PIL import Image

from odebench.analysis.claims import claims_of
from odebench.analysis.comparison import difference
from odebench.analysis.dataframe import load_results
from odebench.attack.candidate_file import Candidates, read_candidates, write_candidates
from odebench.cli import _exit_code
from odebench.dataset import load_dataset
from odebench.dataset.folder import read_image_folder
from odebench.errors import OdebenchError
from odebench.io.canonical_json import digest
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.read import read_results
from odebench.leaderboard.selection import Selection
from odebench.progress import SILENT
from odebench.protocol.protocol_file import protocol_files
from odebench.render.breakdown import BREAKDOWNS, breakdown_markdown
from odebench.render.claims import claims_json, claims_markdown
from odebench.render.comparison import difference_json, difference_text
from odebench.render.markdown_tables import markdown
from odebench.render.page import page_html
from odebench.render.publish import page_content
from odebench.render.records import csv_text, json_text
from odebench.result.schema import letter_figures
from odebench.submission.entry import read_entry
from odebench.submission.provenance import provenance
from odebench.submission.verification import sampling
from odebench.submission.verification.committed_results import (
    claim_result_findings,
    committed_results,
    coverage_findings,
)
from odebench.sweep.protocol_cells import read_grid
from odebench.sweep.registered import registered_claims

NUMBERS: tuple[Any, ...] = (0, -1, 1, 2**31, 2**63, 10**400, 1e308, -1e308, 5e-324, 0.1, 1e9, 10**6, True, None)
WORDS = ("", "a", "../x", "a/b", ".", "con", "\x1b[31m", "\u202e", "|", "`", "<b>", "$(x)", "é" * 90, "x" * 101, "NaN")
DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]
ENTRY = "tis-ode"
COMMANDS = (
    ("leaderboard", "R"),
    ("leaderboard", "R", "--format", "json"),
    ("claims", "R", "--json"),
    ("compare", "R", "R"),
    ("validate", "R"),
    ("protocols",),
    ("run", "-m", "ode", "-a", "pgd", "--set", "epochs=1", "--epsilon", "0.1", "--horizon", "1", "--offset", "5"),
    ("run", "-m", "ode", "-a", "pgd", "--solver", "dopri5", "--tolerance", "1e-3", "--weights", "none"),
    ("judge", "-m", "ode", "R"),
    ("sweep", "digits", "--scheduler", "tcp://127.0.0.1:1"),
)
"""Command lines whose words are changed; R is a folder of results. None of them computes where its words are wrong."""


def places(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values in a JSON document."""
    found = [where] if where else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*where, key))
    return found


def changed(result: dict[str, Any], generator: random.Random) -> dict[str, Any]:
    """The result with one or two values changed, and its digests repaired."""
    result = copy.deepcopy(result)
    for _ in range(generator.choice((1, 1, 2))):
        *path, last = generator.choice(places(result))
        inside = result
        for key in path:
            inside = inside[key]
        inside[last] = _another(inside[last], generator)
    return _repaired(result)


def plausible(result: dict[str, Any], generator: random.Random) -> dict[str, Any]:
    """The result with one to three changes that a reader has to take, and all that must agree."""
    result = copy.deepcopy(result)
    evaluation, found = result["evaluation"], result["found"]
    part = evaluation["dataset"]
    for kind in generator.sample(range(8), generator.choice((1, 2, 3))):
        if kind == 0:
            part["offset"] = generator.choice((0, 1, 99, generator.randrange(10**6 - part["n"]), 10**6 - part["n"]))
        elif kind == 1:
            part["name"] = generator.choice(("a", "é" * 90, "con", "a|b", "`", "<b>", "$(x)", "-rf", " "))
        elif kind == 2:
            evaluation["model"]["arguments"] = {generator.choice(WORDS[1:5]): generator.choice((1, 1e308, [[]], "|"))}
        elif kind == 3:
            factor = generator.choice((1e-300, 1e-9, 0.5, 2, 100))
            for one in result["epsilons"]:
                one["epsilon"] *= factor
                one["figures"]["norm_quantiles"] = None
            evaluation["threat_model"]["epsilons"] = [one["epsilon"] for one in result["epsilons"]]
        elif kind == 4:
            for one in result["epsilons"]:
                one["outcomes"] = one["outcomes"].replace("f", "r").replace("x", "r")
                one["felled_by"]["letters"] = "-" * len(one["felled_by"]["letters"])
                figures = {name: value.model_dump() for name, value in letter_figures(one["outcomes"]).items()}
                one["figures"] |= figures | {"norm_quantiles": None}
        elif kind == 5:
            evaluation["attack"]["seed"] = generator.choice((0, -1, 2**63 - 1, -(2**63)))
        elif kind == 6:
            found["weights_sha256"] = f"{generator.getrandbits(256):064x}"
        else:
            result["created"] = generator.choice(("0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00"))
    return _repaired(result)


def _repaired(result: dict[str, Any]) -> dict[str, Any]:
    with contextlib.suppress(Exception):
        result["run_key"] = digest(result["evaluation"])
        letters = [[one["epsilon"], one["outcomes"], one["felled_by"]] for one in result["epsilons"]]
        result["outcomes_sha256"] = digest(letters)
    return result


def _another(value: Any, generator: random.Random) -> Any:
    """Another value, most often of the same kind."""
    if generator.random() < 0.1:
        return generator.choice((*NUMBERS, *WORDS, DEEP, {}, [], {"a": 1}))
    if isinstance(value, bool) or value is None:
        return generator.choice((True, False, None))
    if isinstance(value, int | float):
        return generator.choice((value + 1, value * 2, value / 2, -value, *generator.sample(NUMBERS, 2)))
    if isinstance(value, str):
        return generator.choice((value[:-1], value + "x", value.upper(), *generator.sample(WORDS, 2)))
    if isinstance(value, list):
        return generator.choice((value[:-1], value * 2, value[::-1], []))
    return dict(list(value.items())[:-1]) if generator.random() < 0.5 else {**value, "more": 1}


class Cases:
    """The good files, and what is done with a changed one; `counts` are the cases by kind and reader that passed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.counts = folder, Counter[str]()
        root = Path(__file__).parents[1]
        chosen = sorted((root / "leaderboard" / "results").rglob("*-linf-*.json"))
        self.asked = registered_claims(root / "leaderboard" / "claims.yaml")
        self.entry = root / "leaderboard" / "entries" / ENTRY
        self.read, self.data = read_entry(self.entry), {"digits": load_dataset("digits")}
        own = sorted((root / "leaderboard" / "results" / ENTRY).glob("*.json"))
        self.own = [json.loads(path.read_text(encoding="utf-8")) for path in own]
        self.results = [json.loads(path.read_text(encoding="utf-8")) for path in chosen[:: max(1, len(chosen) // 12)]]
        self.protocols = [path.read_bytes() for path in protocol_files().values()]
        candidates = Candidates(
            torch.rand(4, 1, 8, 8),
            torch.arange(4),
            torch.full((4,), 0.1, dtype=torch.float64),
            "digits",
            "test",
            "0" * 64,
            "linf",
            "fuzz",
        )
        write_candidates(folder / "good.safetensors", candidates)
        self.candidates = (folder / "good.safetensors").read_bytes()
        (folder / "good.safetensors").unlink()
        self.archive = _archive()

    def result(self, generator: random.Random) -> None:
        place = self.folder / "results" / "model"
        place.mkdir(parents=True)
        for index in range(2):
            change = plausible if generator.random() < 0.7 else changed
            made = change(generator.choice(self.results), generator)
            (place / f"{index}.json").write_text(json.dumps(made), encoding="utf-8")
        stored, problems = read_results([place.parent])
        self.counts["result: pass the schema"] += len(stored)
        self.counts["result: refused"] += len(problems)
        tables, _ = build_tables(stored)
        for reader in (markdown, csv_text, json_text):
            reader(tables)
        breakdown_markdown(stored, tables, Selection(), BREAKDOWNS["attack"])
        found = difference(stored[:1], stored[1:])
        difference_text(found, "a", "b")
        difference_json(found)
        claims = claims_of(self.asked, stored)
        claims_markdown(claims)
        claims_json(claims)
        self.counts["result: board, records, comparison, claims"] += 1
        content, _ = page_content([place.parent], self.asked, provenance=provenance(None))
        page_html(content, link=str)
        self.counts["result: page"] += 1
        self._said("show", str(place / "0.json"))
        with contextlib.suppress(OdebenchError):
            load_results(place.parent)
        self.verified(generator)

    def verified(self, generator: random.Random) -> None:
        """What `verify` reads of an entry with changed results, before it runs anything."""
        place = self.folder / "committed" / ENTRY
        place.mkdir(parents=True)
        for index in range(2):
            change = plausible if generator.random() < 0.7 else changed
            made = change(generator.choice(self.own), generator)
            (place / f"{index}.json").write_text(json.dumps(made), encoding="utf-8")
        committed, findings = committed_results(self.entry, self.read, place.parent, self.data)
        findings += coverage_findings(self.entry, self.read, committed, self.data)
        findings += claim_result_findings(self.entry, self.read, committed)
        draw = generator.getrandbits(32)
        sampling.drawn_results(draw, self.read, committed)
        sampling.all_results(committed)
        self.counts["result: verify, read"] += len(committed)
        self.counts["result: verify, findings"] += len(findings)

    def protocol(self, generator: random.Random) -> None:
        path = self.folder / "protocol.yaml"
        path.write_bytes(mutated(generator.choice(self.protocols), generator))
        read_grid(str(path))
        self.counts["protocol: laid out"] += 1

    def candidate(self, generator: random.Random) -> None:
        path = self.folder / "candidates.safetensors"
        path.write_bytes(mutated(self.candidates, generator))
        read_candidates(path)
        self.counts["candidate: read"] += 1

    def archive_of_images(self, generator: random.Random) -> None:
        path = self.folder / "images.tar.gz"
        path.write_bytes(mutated(self.archive, generator))
        read_image_folder(path, name="images", progress=SILENT)
        self.counts["archive: read"] += 1

    def command(self, generator: random.Random) -> None:
        words = ["odebench", *generator.choice(COMMANDS)]
        place = generator.randrange(1, len(words))
        token = generator.choice((*TOKENS, *map(str.encode, WORDS))).decode("utf-8", "replace")
        kind = generator.randrange(3)
        words[place : place + (kind != 0)] = [token] if kind < 2 else [words[place] + token[:100]]
        words = [str(self.folder) if word == "R" else word for word in words if "\0" not in word]
        if words[1:2] == ["run"] and "--n-of-fuzz" not in words:
            words += ["-n", "-1"]  # whatever else is right, nothing runs
        self.counts[f"command: exit {self._said(*words[1:])}"] += 1

    def _said(self, *words: str) -> int:
        """The exit code of a command that is run in this process."""
        before, sys.argv = sys.argv, ["odebench", *words]
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
                code = _exit_code()
        finally:
            sys.argv = before
        if "please report it" in said.getvalue():
            raise AssertionError(f"{words}: {said.getvalue()[-300:]}")
        return code


def _archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for split in ("train", "test"):
            for label in ("cat", "dog"):
                for index in range(4):
                    image = io.BytesIO()
                    Image.new("L", (8, 8), 40 * index).save(image, "PNG")
                    member = tarfile.TarInfo(f"images/{split}/{label}/{index}.png")
                    member.size = len(image.getvalue())
                    archive.addfile(member, io.BytesIO(image.getvalue()))
    return packed.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu-seconds", type=float, default=300)
    parser.add_argument("--only", default="result,protocol,candidate,archive,command")
    given = parser.parse_args()
    os.environ["ODEBENCH_LEADERBOARD"] = ""  # nothing published stands in for a case
    kinds, faults, done, slowest = given.only.split(","), [], Counter[str](), 0.0
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        stack.callback(os.chdir, os.getcwd())
        base = Path(name) / "a" / "b" / "c"  # so that a path which climbs stays in here
        base.mkdir(parents=True)
        os.chdir(base)
        cases = Cases(base)
        calls: dict[str, Callable[[random.Random], None]] = {
            "result": cases.result,
            "protocol": cases.protocol,
            "candidate": cases.candidate,
            "archive": cases.archive_of_images,
            "command": cases.command,
        }
        until = time.process_time() + given.cpu_seconds
        for number in range(given.first, given.first + given.cases):
            if time.process_time() > until:
                break
            kind = kinds[number % len(kinds)]
            with tempfile.TemporaryDirectory(dir=base) as own:
                cases.folder, started = Path(own), time.process_time()
                os.chdir(own)  # what a command writes where nothing else is asked for
                try:
                    with limited(10 * TIME_LIMIT_SECONDS):
                        calls[kind](random.Random(f"{given.seed}/{number}"))
                except OdebenchError:
                    cases.counts[f"{kind}: refused"] += 1
                except Exception as error:
                    last = traceback.extract_tb(error.__traceback__)[-1]
                    where = f"{Path(last.filename).name}:{last.lineno}"
                    faults.append(f"case {number} ({kind}): {type(error).__name__}: {str(error)[:300]} in {where}")
                seconds = time.process_time() - started
                os.chdir(base)
            slowest = max(slowest, seconds if done[kind] else 0.0)  # the first imports what it needs
            if seconds > TIME_LIMIT_SECONDS and done[kind]:
                faults.append(f"case {number} ({kind}): took {seconds:.1f} s")
            left = [path for path in Path(name).rglob("*") if path not in (base, *base.parents)]
            faults += [f"case {number} ({kind}): left {path.relative_to(name)}" for path in left]
            done[kind] += 1
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if gigabytes > 1:
        faults.append(f"{gigabytes:.2f} GB")
    for what, count in sorted(cases.counts.items()):
        print(f"{what:44} {count:6}")
    total = sum(done.values())
    print(f"{total} cases ({dict(done)}); slowest {slowest:.2f} s; {gigabytes:.2f} GB; {len(faults)} faults")
    for line in faults:
        print(line)
    return 1 if faults or total < given.cases else 0


if __name__ == "__main__":
    sys.exit(main())
