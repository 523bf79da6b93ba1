"""Kills commands at random moments, starts them again, and compares what comes out with an undisturbed run.

    python benchmarks/kill_commands.py [--kills 100] [--first 0] [--seed 0] [--only run,train,sweep,verify,check-pr]

Each kill takes the next of the commands, one of SIGKILL, SIGTERM and SIGINT, and the main process or its whole group.
After the second start weights must be the same byte for byte, results too but for times and environment, and what
verify and check-pr say; in TMPDIR and the cache nothing may be left that is not there undisturbed, and no process may
live. Prints a line for each kill, and exits 1 where one of them left its mark.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from hostile_entries import RETURN, code, git, trained, write_entry
from kill_sweep import results, weights

PROTOCOL = """\
name: two
version: 1
summary: two cells
dataset: {name: digits, n: 100}
recipes: {ode-ablated: {epochs: 4}}
sections:
  - name: matched
    models: [ode-ablated]
    horizons: [1]
    train_seeds: [0]
    threat_models: [{norm: linf, epsilons: [0.1]}]
    attacks: [{name: fgsm}, {name: pgd}]
"""
COMMANDS = {
    "run": ["run", "-m", "ode-ablated", "-a", "pgd", "-n", "200", "--set", "epochs=4"],
    "train": ["train", "-m", "ode-ablated", "--set", "epochs=8"],
    "sweep": ["sweep", "two.yaml", "--workers", "1"],
    "verify": ["verify", "mine", "--trust", "--draw", "7", "--json"],
    "check-pr": ["check-pr", "main", "--trust", "--draw", "7", "--json"],
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {"verify": 1, "check-pr": 1}
"""The entry has no results, so that it is refused once it has been looked at; all other commands end well."""
ENDS_WITHIN = 20.0


def prepared(folder: Path) -> Path:
    """A repository with a pull request of an honest entry, and a protocol."""
    (folder / "leaderboard" / "results").mkdir(parents=True)
    (folder / "two.yaml").write_text(PROTOCOL, encoding="utf-8")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "main")
    git(folder, "checkout", "-qb", "mine")
    write_entry(folder / "leaderboard" / "entries", "mine", code(RETURN), trained(), has_field=False)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "mine")
    return folder


def start(command: str, folder: Path) -> subprocess.Popen[bytes]:
    """Starts a command in a session of its own, with cache and TMPDIR below `folder`."""
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ODEBENCH")}
    environment |= {"ODEBENCH_CACHE": str(folder / "cache"), "ODEBENCH_LEADERBOARD": str(folder / "leaderboard")}
    environment |= {"TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    with (folder / "out.txt").open("wb") as out, (folder / "err.txt").open("ab") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "odebench", *COMMANDS[command]],
            cwd=folder,
            env=environment,
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def living(folder: Path) -> list[int]:
    """The processes that work in a folder or were started with its TMPDIR."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            inside = Path(process.cwd()).is_relative_to(folder)
            if inside or process.environ().get("TMPDIR") == str(folder / "tmp"):
                found.append(process.pid)
    return found


def none_left(folder: Path) -> list[int]:
    """The processes that still live after a while."""
    until = time.monotonic() + ENDS_WITHIN
    while (found := living(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def finished(command: str, folder: Path) -> dict[str, Any]:
    """What a command has left: weights, results, what it printed, and the names of all files."""
    names = [str(path.relative_to(folder)) for part in ("cache", "results") for path in (folder / part).rglob("*")]
    scratch = [path.name for path in (folder / "tmp").iterdir() if not path.name.startswith("torchinductor_")]
    said = ""
    if command in CODES:
        found = json.loads((folder / "out.txt").read_text(encoding="utf-8"))
        said = json.dumps(found).replace(str(folder), "")
        for name in ("base", "fork", "head"):
            said = said.replace(str(found.get(name, "-")), "")
    return {
        "weights": weights(folder),
        "results": results(folder),
        "said": said,
        "files": sorted(names),
        "tmp": sorted(scratch),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(COMMANDS))
    given = parser.parse_args()
    commands = given.only.split(",")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background makes children ignore it
    faults, done, left_once = 0, Counter[str](), 0
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        top = Path(name).resolve()
        template = prepared(top / "template")
        whole: dict[str, dict[str, Any]] = {}
        seconds: dict[str, float] = {}
        for number in range(given.first, given.first + given.kills):
            chance = random.Random(f"{given.seed}/{number}")
            command = commands[number % len(commands)]
            if command not in whole:
                folder = Path(shutil.copytree(template, top / f"whole-{command}", symlinks=True))
                began = time.monotonic()
                if start(command, folder).wait() != CODES.get(command, 0):
                    print((folder / "err.txt").read_text(encoding="utf-8")[-2000:], file=sys.stderr)
                    return 2
                seconds[command] = time.monotonic() - began
                whole[command] = finished(command, folder)
                print(f"{command}: undisturbed, {seconds[command]:.1f} s", flush=True)
            how, group = chance.choice(SIGNALS), chance.random() < 0.5
            folder = Path(shutil.copytree(template, top / f"{number}", symlinks=True))
            found = []
            process = start(command, folder)
            time.sleep(chance.uniform(0.1, 1) * seconds[command])
            ended = process.poll() is not None
            with suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(process.pid, how)
            try:
                first = process.wait(timeout=ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                found.append(f"did not end within {ENDS_WITHIN:.0f} s")
                process.kill()
                first = process.wait()
            if alive := none_left(folder):
                found.append(f"processes {alive} are left")
            for pid in alive:
                with suppress(psutil.Error):
                    psutil.Process(pid).kill()
            err = (folder / "err.txt").read_text(encoding="utf-8", errors="replace")
            if "Traceback" in err or "please report it" in err:
                found.append(f"it said: {err[-300:]}")
            left_once += any(path.name.startswith("odebench-") for path in (folder / "tmp").iterdir())
            time.sleep(2.1)  # younger folders are not taken away
            second = start(command, folder).wait()
            if second != CODES.get(command, 0):
                found.append(f"the second start ended with {second}")
            else:
                after = finished(command, folder)
                found += [f"{what} differ" for what, value in whole[command].items() if after[what] != value]
                if after["tmp"] != whole[command]["tmp"]:
                    found.append(f"left in TMPDIR: {after['tmp']}")
                if after["files"] != whole[command]["files"]:
                    found.append(f"files: {sorted(set(after['files']) ^ set(whole[command]['files']))}")
            if alive := none_left(folder):
                found.append(f"after the second start processes {alive} are left")
            who = "group" if group else "process"
            when = "at its end" if ended else f"exit {first}"
            print(
                f"{'BAD' if found else 'ok '} {number} {command} {how.name} {who} {when}: {'; '.join(found)}",
                flush=True,
            )
            faults += bool(found)
            done[f"{command} {how.name} {who}"] += 1
            shutil.rmtree(folder)
    print(f"{sum(done.values())} kills, {faults} with a fault; scratch folders were left by {left_once} of the killed")
    print(", ".join(f"{what}: {count}" for what, count in sorted(done.items())))
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
