"""Do mutated entries, results and weights ever cause anything but a plain answer? Exits 1 where they do.

    python benchmarks/fuzz_entries.py [--cases 10000] [--seed 0] [--cpu-seconds 300] [--only entry,code,weights,result]

Each case takes a good file, changes bytes, tokens or lines of it, and hands it to what reads such files: `odebench
validate` for entry.yaml, the model's code and weights, the strict reader for results, and for weights the loader, too.
A case fails with an exception that is none of ours, after more than 5 seconds, or where a file is written outside the
folder of the case, a process is started or the entry's module is imported, which an audit hook sees; and where weights
are accepted that are not those whose sha256 the entry gives.
A failing case is named by its number: the same seed makes it again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from odebench.errors import OdebenchError
from odebench.io.tensor_file import read_tensors
from odebench.result.file import read_result
from odebench.submission.validate import validate_entry

TIME_LIMIT_SECONDS = 5.0
TOKENS = (
    *(b"-1", b"1e999", b"NaN", b".inf", b"null", b"~", b"9" * 5000, b"9" * 400, b"-" + b"9" * 30, b"0x", b"1e-3"),
    *(b"8/0", b"true", b"''", b'""', b"[" * 300, b"{" * 300, b"- " * 300, b"&a [*a]", b"*a", b"<<: *a", b"? ", b": "),
    *(b"!!python/object/apply:os.system [true]", b"!!int x", b"!!binary =", b"2025-02-31", b'"\\ud800"', b"\x00"),
    *(b"\xff\xfe", b"\xe2\x80\xae", b"\x1b[2J", b"../../../../etc/passwd", b"/dev/zero", b"file:///etc/passwd"),
    *(b"PK\x03\x04", b"PK\x05\x06", b"\x80\x04", b".", b"cos\nsystem\n(S'true'\ntR.", b"\xff" * 8, b"\x00" * 8),
    *(b"data_offsets", b"__metadata__", b"f64", b"---\n", b"- ", b"#", b"|", b">", b"%YAML 9.9\n", b"(" * 2000),
    *(b"lambda: " * 300, b"\\N{DASH}", b"# coding: utf-7\n", b"!!set {a}", b"!!omap [a: 1]"),
)
"""Texts on which readers of YAML, JSON, Python, safetensors and pickles have stumbled before."""


def mutated(data: bytes, generator: random.Random) -> bytes:
    """The bytes with one to four changes, small ones more often than large ones."""
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        data = generator.choice(_CHANGES)(data, generator)
    return data


def _flip(data: bytes, generator: random.Random) -> bytes:
    if not data:
        return data
    place = _place(data, generator)
    return data[:place] + bytes([data[place] ^ 1 << generator.randrange(8)]) + data[place + 1 :]


def _token(data: bytes, generator: random.Random) -> bytes:
    place = _place(data, generator)
    return data[:place] + generator.choice(TOKENS) + data[place + generator.choice((0, 1, 4, 16)) :]


def _value(data: bytes, generator: random.Random) -> bytes:
    """A token instead of what stands behind a colon or a comma."""
    places = [index for index, byte in enumerate(data[:20_000]) if byte in b":,[{"]
    if not places:
        return data
    start = generator.choice(places) + 1
    end = next((index for index in range(start, len(data)) if data[index] in b",]}\n"), len(data))
    return data[:start] + b" " + generator.choice(TOKENS) + data[end:]


def _cut(data: bytes, generator: random.Random) -> bytes:
    start = _place(data, generator)
    return data[:start] + data[start + generator.choice((1, 2, 8, 64, len(data))) :]


def _repeat(data: bytes, generator: random.Random) -> bytes:
    start = _place(data, generator)
    piece = data[start : start + generator.choice((1, 8, 64, 512))]
    return data[:start] + piece * generator.choice((2, 3, 50)) + data[start + len(piece) :]


def _lines(data: bytes, generator: random.Random) -> bytes:
    """Two lines change places, or one is struck, repeated or indented."""
    lines = data.split(b"\n")
    first, second = generator.randrange(len(lines)), generator.randrange(len(lines))
    kind = generator.randrange(4)
    if kind == 0:
        lines[first], lines[second] = lines[second], lines[first]
    elif kind == 1:
        del lines[first]
    elif kind == 2:
        lines.insert(second, lines[first])
    else:
        lines[first] = b"  " * generator.randrange(3) + lines[first].strip()
    return b"\n".join(lines)


def _noise(data: bytes, generator: random.Random) -> bytes:
    start = _place(data, generator)
    return data[:start] + generator.randbytes(generator.choice((1, 4, 32))) + data[start:]


def _place(data: bytes, generator: random.Random) -> int:
    """A place in the bytes: anywhere, or near the beginning, where headers are."""
    return generator.randrange(max(1, min(len(data), generator.choice((16, 400, len(data) + 1)))))


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip, _token, _token, _value, _value, _cut, _repeat, _lines, _noise),
)


@dataclass
class Samples:
    """Good files to begin with. `folder` holds the entries mine, with a module, and listed, of a built-in model."""

    folder: Path
    results: Sequence[bytes]


@dataclass
class Tally:
    """How many cases there were of each kind, how many were refused, and which failed how."""

    cases: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0


def run_case(kind: str, samples: Samples, generator: random.Random) -> bool:
    """One case, in the sample's folder; whether what was read was refused. Raises whatever is not an error of ours."""
    if kind == "result":
        return _refuses(read_result, _written(samples.folder / "result.json", samples.results, generator))
    if kind == "weights":
        path = samples.folder / generator.choice(("mine", "listed")) / "one.safetensors"
        good = path.read_bytes()
        _written(path, [good], generator)
        _refuses(read_tensors, path)
        refused = _is_refused(path.parent)
        assert refused or path.read_bytes() == good, "other weights than the entry lists are accepted"
        return refused
    if kind == "entry":
        path = samples.folder / generator.choice(("mine", "listed")) / "entry.yaml"
    else:
        path = samples.folder / "mine" / generator.choice(("model.py", "README.md"))
    _written(path, [path.read_bytes()], generator)
    return _is_refused(path.parent)


def _is_refused(folder: Path) -> bool:
    report = validate_entry(folder)
    json.dumps(report.json()).encode("utf-8")
    for each in report.findings:
        assert str(each).isprintable(), each
    return bool(report.findings)


def _refuses(read: Callable[[Path], object], path: Path) -> bool:
    try:
        read(path)
    except OdebenchError:
        return True
    return False


def _written(path: Path, originals: Sequence[bytes], generator: random.Random) -> Path:
    path.write_bytes(mutated(generator.choice(originals), generator))
    return path


class TooSlowError(Exception):
    """A case took longer than the limit."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TooSlowError in what is done meanwhile once the time is over."""

    def stop(*_: object) -> None:
        raise TooSlowError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Watch:
    """What a case does that it must not: writing outside its folder, starting a process, importing the model."""

    def __init__(self, allowed: Path) -> None:
        self.allowed = str(allowed)
        self.seen: list[str] = []
        self.on = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.on:
            return
        if event == "open" and isinstance(arguments[0], str | bytes) and self._writes(arguments):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if not path.startswith(self.allowed):
                self.seen.append(f"writes {path}")
        elif event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"):
            self.seen.append(event)
        elif event in ("os.remove", "os.rename", "os.mkdir", "os.symlink", "shutil.rmtree"):
            if not os.path.abspath(os.fsdecode(str(arguments[0]))).startswith(self.allowed):
                self.seen.append(f"{event} {arguments[0]}")
        elif event == "import" and arguments[0] == "model":
            self.seen.append("imports the model")

    @staticmethod
    def _writes(arguments: tuple[object, ...]) -> bool:
        mode, flags = arguments[1], arguments[2]
        if isinstance(mode, str):
            return any(letter in mode for letter in "wax+")
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def fuzz(
    samples_of: Callable[[Path], Samples],
    *,
    cases: int,
    seed: int,
    kinds: Sequence[str],
    cpu_seconds: float,
    watch: bool,
) -> Tally:
    """Runs cases, kinds in turn, each from good files anew, until there are enough or the time is over."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        allowed = Path(name).resolve()
        guard = Watch(allowed)
        if watch:
            sys.addaudithook(guard)
        samples = samples_of(allowed)
        good = {path: path.read_bytes() for path in allowed.rglob("*") if path.is_file()}
        for number in range(cases):
            if time.process_time() > cpu_seconds:
                break
            kind = kinds[number % len(kinds)]
            guard.on, started = True, time.monotonic()
            try:
                with limited(TIME_LIMIT_SECONDS):
                    tally.refused[kind] += run_case(kind, samples, random.Random(f"{seed}/{number}"))
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                last = traceback.extract_tb(error.__traceback__)[-1]
                said = f"{type(error).__name__}: {str(error)[:200]} in {Path(last.filename).name}:{last.lineno}"
                tally.faults.append(f"case {number} ({kind}): {said}")
            guard.on, seconds = False, time.monotonic() - started
            tally.cases[kind] += 1
            tally.slowest_seconds = max(tally.slowest_seconds, seconds)
            if seconds > TIME_LIMIT_SECONDS:
                tally.faults.append(f"case {number} ({kind}): took {seconds:.1f} s")
            tally.faults += [f"case {number} ({kind}): {event}" for event in guard.seen]
            guard.seen.clear()
            for path in [path for path in allowed.rglob("*") if path.is_file() and path not in good]:
                if path.name != "result.json":
                    tally.faults.append(f"case {number} ({kind}): left {path.name}")
                path.unlink()
            for path, data in good.items():
                if path.read_bytes() != data:
                    path.write_bytes(data)
    return tally


def published_samples(folder: Path) -> Samples:
    """The samples of the tests: an entry of its own, results and weights like those that odebench writes."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from entry_factory import write_entry, write_registered_entry
    from result_factory import make_result

    from odebench.result.file import result_json

    write_entry(folder)
    write_registered_entry(folder)
    results = [
        result_json(make_result({0.1: "rrfxmu" * 10})).encode(),
        result_json(make_result({0.05: "r" * 100, 0.1: "f" * 100}, horizon=None, flags=("noise",))).encode(),
    ]
    published = sorted((Path(__file__).parents[1] / "leaderboard" / "results").rglob("*-pgd-*.json"))
    results += [path.read_bytes() for path in published[:3]]
    return Samples(folder, results)


def main() -> int:
    """Prints how many cases there were and how many were refused, and every case that failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu-seconds", type=float, default=300)
    parser.add_argument("--only", default="entry,code,weights,result")
    given = parser.parse_args()
    kinds = given.only.split(",")
    started = time.process_time()
    tally = fuzz(
        published_samples,
        cases=given.cases,
        seed=given.seed,
        kinds=kinds,
        cpu_seconds=time.process_time() + given.cpu_seconds,
        watch=True,
    )
    for kind in kinds:
        print(f"{kind:8} {tally.cases[kind]:6} cases, {tally.refused[kind]:6} refused")
    total = sum(tally.cases.values())
    print(
        f"{total} of {given.cases} cases in {time.process_time() - started:.0f} s of CPU; slowest "
        f"{tally.slowest_seconds:.2f} s; {len(tally.faults)} faults"
    )
    for line in tally.faults:
        print(line)
    return 1 if tally.faults or total < given.cases else 0


if __name__ == "__main__":
    sys.exit(main())
