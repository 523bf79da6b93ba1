"""`odebench sweep` and `odebench protocols`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from odebench.cli.options import AsJson, DataDir, Device, Results, completing, distinct
from odebench.cli.root import app
from odebench.errors import UsageError
from odebench.io.folders import LEADERBOARD, published_folder

if TYPE_CHECKING:
    from odebench.sweep.protocol_cells import Grid
    from odebench.sweep.scheduler import State
    from odebench.sweep.task import Workspace


def _protocols() -> Iterable[str]:
    from odebench.protocol.protocol_file import protocol_files

    return protocol_files()


@app.command(
    epilog="Examples:\n\nodebench sweep digits\n\nodebench sweep my-grid.yaml --workers 4\n\n"
    "odebench sweep fashion-mnist --scheduler tcp://10.0.0.1:8786\n\nodebench sweep digits --publish\n\n"
    "odebench sweep digits-full --section cw"
)
def sweep(
    protocol: Annotated[
        str,
        typer.Argument(
            help="A protocol's name (`odebench protocols` lists them) or a .yaml file.",
            autocompletion=completing(_protocols),
        ),
    ],
    section: Annotated[
        list[str] | None,
        typer.Option(metavar="SECTION", help="This section of the protocol alone; repeatable. Default: all."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine. Default: cores // threads per task.")
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
    slice_images: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Split evaluations of more than N images into tasks; same results."),
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Then copy results and weights to ./leaderboard and write its board.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="--publish: replace what differs.")] = False,
) -> None:
    """Train and evaluate everything in a protocol, in parallel; finished cells are skipped."""
    from odebench.sweep.protocol_cells import read_grid

    grid = read_grid(protocol)
    name = f"{grid.protocol.name} {grid.protocol.version}"
    if section:
        distinct(section, "section")
        grid = grid.only(section)
        name = f"{name} ({', '.join(section)})"
    from odebench.cli.results import LOCAL_RESULTS
    from odebench.cli.watch import watching
    from odebench.sweep.scheduler import Cluster, workspace_of
    from odebench.sweep.scheduler import sweep as compute

    if force and not publish:
        raise UsageError("--force goes with --publish: it replaces published files that differ")
    tls = (tls_ca, tls_cert, tls_key)
    if scheduler is None and any(tls):
        raise UsageError("--tls-ca, --tls-cert and --tls-key go with a --scheduler tls://...")
    if scheduler is not None and workers is not None:
        raise UsageError("--workers are processes on this machine; a --scheduler has its own workers")
    if any(tls) and not all(tls):
        raise UsageError("--tls-ca, --tls-cert and --tls-key go together")
    files = None if tls_ca is None or tls_cert is None or tls_key is None else (tls_ca, tls_cert, tls_key)
    if publish:
        _check_publishing()
    # published results count if the results go to the usual folder; any other folder is filled completely
    counts = results == LOCAL_RESULTS
    workspace = workspace_of(grid, results=results, data_dir=data_dir, device=device, counts_published=counts)
    cluster = Cluster(workers=workers, address=scheduler, tls=files)
    with watching(name) as watcher:
        state = compute(grid, workspace=workspace, cluster=cluster, watcher=watcher, slice_images=slice_images)
    conclude(state, name, results, publish=publish, weights=grid.protocol.weights)
    if publish:
        _publish(grid, workspace, name, force=force)


def _check_publishing() -> None:
    """Raises UsageError where nothing can be published, before anything is computed."""
    if not LEADERBOARD.path.is_dir():
        raise UsageError(
            f"there is no folder {LEADERBOARD.path} here; --publish is for a checkout of odebench, from its root"
        )


def _publish(grid: Grid, workspace: Workspace, name: str, *, force: bool) -> None:
    """Copies the missing files to ./leaderboard, says how many they were, and writes the board."""
    from odebench.cli.leaderboard import publish_leaderboard
    from odebench.sweep.publish import publication_of

    publication = publication_of(grid, workspace, LEADERBOARD, replace=force)
    size = publication.make() / 1e6
    there = f", {publication.there} were there" if publication.there else ""
    results, weights = len(publication.results), len(publication.weights)
    files = f"{results} result{'s' * (results != 1)} and {weights} file{'s' * (weights != 1)} of weights"
    print(f"{name}: {files} ({size:.2f} MB) published{there}")
    publish_leaderboard()


def conclude(
    state: State, name: str, results: Path, *, publish: bool = False, weights: bool = True, out: TextIO | None = None
) -> None:
    """Says on `out`, by default standard output, how a sweep ended. Exits with 1 where something failed."""
    folder = published_folder()
    where = None if folder is None else folder.results_of(weights=weights)
    published = f"{state.published} of them in {where}" if state.published else ""
    if not state.tasks:
        some = f"there, {published}" if state.published != state.there else f"in {where}"
        said = some if published else f"in {results}"
        print(f"{name}: nothing to do: all {state.there} results are {said}", file=out)
        return
    done, failed = state.of("evaluation", state.done), state.of("evaluation", state.failed)
    there = f", {state.there} were there" if state.there else ""
    there += f" ({published})" if published else ""
    bad = f", {failed} failed" if failed else ""
    print(f"{name}: {done} result{'s' * (done != 1)} written to {results}{there}{bad}", file=out)
    reasons: dict[str, list[str]] = {}
    for key, reason in state.failed.items():
        if state.tasks[key].kind == "evaluation":
            reasons.setdefault(reason, []).append(state.tasks[key].title)
    for reason, titles in reasons.items():
        if len(titles) == state.total("evaluation") > 1 and not state.there:
            titles = [f"all {len(titles)} cells"]
        for title in titles:
            print(f"odebench: failed: {title}: {reason}", file=sys.stderr)
    if failed:
        if publish:
            print("odebench: nothing is published, since not everything is done", file=sys.stderr)
        raise typer.Exit(1)


@app.command(epilog="Examples:\n\nodebench protocols\n\nodebench protocols --time --json")
def protocols(
    time: Annotated[
        bool, typer.Option("--time", help="Also time a gradient of each model, and estimate how long each takes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the protocols: data set, trainings and evaluations (--json: sections, too); with --time about how long."""
    from odebench.cli.console import print_table, write_text
    from odebench.protocol.protocol_file import protocol_files
    from odebench.sweep.protocol_cells import read_grid

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
            "sections": [section.name for section in grid.protocol.sections],
        }
        if time:
            from odebench.sweep.timing import probe

            row["seconds"] = round(probe(grid))
        rows.append(row)
    if as_json:
        write_text(json.dumps(rows, indent=1))
        return
    from odebench.cli.console import duration

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
