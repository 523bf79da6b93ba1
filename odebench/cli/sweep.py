"""`odebench sweep` and `odebench protocols`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odebench.cli.option import AsJson, DataDir, Device, Results
from odebench.cli.root import app
from odebench.errors import UsageError
from odebench.grid import read_grid
from odebench.protocol import protocol_files

if TYPE_CHECKING:
    from odebench.sweep import State


def complete_protocol(incomplete: str) -> list[str]:
    """Protocol names for the shell."""
    return [name for name in protocol_files() if name.startswith(incomplete)]


@app.command(
    epilog="Examples:\n\nodebench sweep digits\n\nodebench sweep my-grid.yaml --workers 4\n\n"
    "odebench sweep fashion-mnist --scheduler tcp://10.0.0.1:8786"
)
def sweep(
    protocol: Annotated[
        str,
        typer.Argument(
            help="A protocol's name (`odebench protocols` lists them) or a .yaml file.",
            autocompletion=complete_protocol,
        ),
    ],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine. Default: cores // threads of a task.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A dask scheduler instead: tcp://host:8786 or tls://...")
    ] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="tls://: file of the certificate authority.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="tls://: file of this client's certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="tls://: file of this client's key.")] = None,
    results: Results = Path("results"),
    data_dir: DataDir = None,
    device: Device = "cpu",
) -> None:
    """Train and evaluate all that a protocol names, in parallel; what is there already is not done again."""
    grid = read_grid(protocol)
    from odebench.cli.board import LOCAL_RESULTS, PUBLISHED_RESULTS
    from odebench.cli.watch import watching
    from odebench.sweep import Cluster, place_of, tasks_of
    from odebench.sweep import sweep as compute

    tls = (tls_ca, tls_cert, tls_key)
    if scheduler is None and any(tls):
        raise UsageError("--tls-ca, --tls-cert and --tls-key go with a --scheduler tls://...")
    if scheduler is not None and workers is not None:
        raise UsageError("--workers are processes on this machine; a --scheduler has workers of its own")
    if any(tls) and not all(tls):
        raise UsageError("--tls-ca, --tls-cert and --tls-key go together")
    files = None if tls_ca is None or tls_cert is None or tls_key is None else (tls_ca, tls_cert, tls_key)
    place = place_of(grid, results=results, data_dir=data_dir, device=device)
    cluster = Cluster(workers=workers, address=scheduler, tls=files)
    name = f"{grid.protocol.name} {grid.protocol.version}"
    if results == LOCAL_RESULTS and not results.is_dir() and PUBLISHED_RESULTS.is_dir():
        # as the leaderboard does: what is published counts where nothing was run, and is never mixed with it
        todo, there = tasks_of(grid, replace(place, results=PUBLISHED_RESULTS))
        if not todo:
            print(f"{name}: nothing to do: all {there} results are in {PUBLISHED_RESULTS}")
            return
    with watching(name) as watcher:
        state = compute(grid, place=place, cluster=cluster, watcher=watcher)
    _conclude(state, name, results)


def _conclude(state: State, name: str, results: Path) -> None:
    """Says how a sweep ended; exit 1 where something failed."""
    if not state.tasks:
        print(f"{name}: nothing to do: all {state.there} results are in {results}")
        return
    done, failed = state.of("evaluation", state.done), state.of("evaluation", state.failed)
    there = f", {state.there} were there" if state.there else ""
    bad = f", {failed} failed" if failed else ""
    print(f"{name}: {done} result{'s' * (done != 1)} written to {results}{there}{bad}")
    reasons: dict[str, list[str]] = {}
    for key, reason in state.failed.items():
        if state.tasks[key].kind == "evaluation":
            reasons.setdefault(reason, []).append(state.tasks[key].title)
    for reason, titles in reasons.items():
        for title in titles:
            print(f"odebench: failed: {title}: {reason}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command(epilog="Examples:\n\nodebench protocols\n\nodebench protocols --time --json")
def protocols(
    time: Annotated[
        bool, typer.Option("--time", help="Also time a gradient of each model here, and say about how long all takes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the protocols: data set, how many trainings and evaluations; with --time about how long on this machine."""
    from odebench.cli.screen import print_table, write_text

    rows: list[dict[str, object]] = []
    for name in protocol_files():
        grid = read_grid(name)
        row: dict[str, object] = {
            "name": name,
            "version": grid.protocol.version,
            "summary": grid.protocol.summary,
            "dataset": grid.dataset.name,
            "trainings": len(grid.trainings),
            "evaluations": len(grid.evaluations),
        }
        if time:
            from odebench.probe import probe

            row["seconds"] = round(probe(grid))
        rows.append(row)
    if as_json:
        write_text(json.dumps(rows, indent=1))
        return
    from odebench.cli.watch import duration

    columns = ["name", "version", "data set", "trainings", "evaluations"]
    body = [[str(row[key]) for key in ("name", "version", "dataset", "trainings", "evaluations")] for row in rows]
    if time:
        columns.append("about")
        body = [[*line, duration(float(str(row["seconds"])))] for line, row in zip(body, rows, strict=True)]
    print_table(columns, body, right=(1, 3, 4, 5))
    cores = os.cpu_count() or 1
    print(
        f"about: from nothing, on the {cores} cores of this machine"
        if time
        else "about how long each takes here: odebench protocols --time"
    )
