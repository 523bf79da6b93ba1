"""`odebench verify`."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odebench.cli.options import AsJson, DataDir, Device, TimeLimit, Trust, complete_dataset, distinct
from odebench.cli.root import app
from odebench.cli.trust import check_trust
from odebench.errors import UsageError
from odebench.io.folders import LEADERBOARD
from odebench.io.text import hanging
from odebench.submission.limits import TIME_LIMIT

if TYPE_CHECKING:
    from odebench.submission.verification.agreement import ComparedChunk
    from odebench.submission.verification.verify import Verification


@app.command(
    epilog="Examples:\n\nodebench verify kd-ode\n\nodebench verify my-ode --trust\n\n"
    "odebench verify leaderboard/entries/my-ode --chunks 0,3 --trust\n\nodebench verify ode --dataset digits --full\n\n"
    "odebench verify kd-ode --retrain --dataset digits"
)
def verify(
    entry: Annotated[str, typer.Argument(metavar="ID_OR_FOLDER", help="An entry's id, or the path of its folder.")],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            help="This data set alone. Default: all of the entry's.",
            autocompletion=complete_dataset,
        ),
    ] = None,
    chunks: Annotated[
        str | None, typer.Option(help="Chunks of 100 test images to look at, such as 0,3. Default: two are drawn.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Check everything that is committed.")] = False,
    draw: Annotated[int | None, typer.Option(min=0, help="Draw the images of an earlier verification.")] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train three of its models again instead, and compare their sha256.")
    ] = False,
    trust: Trust = False,
    results: Annotated[
        Path | None, typer.Option("--results", help="Folder of the committed results. Default: beside the entries.")
    ] = None,
    time_limit: TimeLimit = TIME_LIMIT,
    data_dir: DataDir = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Run an entry's model again on random images, and compare with its results; exit 1 if refused."""
    if retrain:
        if chunks is not None or full or device != "cpu":
            raise UsageError("--retrain trains on the processor: leave out --chunks, --full and --device")
        _retrain(entry, results, dataset=dataset, draw=draw, data_dir=data_dir, as_json=as_json)
        return
    from odebench.cli.console import ScreenProgress, write_text
    from odebench.submission.entry import read_entry
    from odebench.submission.submitted_model import SubmittedModel, find_entry, results_beside
    from odebench.submission.validate import validate_entry

    numbers = None if chunks is None else _numbers(chunks)
    if results is not None and not results.is_dir():
        raise UsageError(f"there is no folder {results} of results; name another, or leave out --results")
    folder = find_entry(entry)
    report = validate_entry(folder)
    if not report.findings:
        found = read_entry(folder)
        check_trust(found.id, SubmittedModel(folder, found).code, trust=trust)
    from odebench.submission.verification.verify import verify_entry

    verified = verify_entry(
        folder,
        results=results_beside(folder) if results is None else results,
        dataset=dataset,
        chunks=numbers,
        full=full,
        draw=draw,
        trust=True,
        report=report,
        time_limit=time_limit,
        device=device,
        data_dir=data_dir,
        progress=ScreenProgress(),
    )
    if as_json:
        write_text(json.dumps(verified.json(), indent=1))
    else:
        _show(verified)
    if not verified.ok:
        raise typer.Exit(1)


def _retrain(
    model: str, results: Path | None, *, dataset: str | None, draw: int | None, data_dir: Path | None, as_json: bool
) -> None:
    """Trains drawn models again and says whether their weights have the recorded sha256; exit 1 where one has not."""
    from odebench.cli.console import ScreenProgress, write_text
    from odebench.submission.verification.retraining import retrain

    seed = secrets.randbelow(2**32) if draw is None else draw
    folders = [LEADERBOARD.results, LEADERBOARD.study] if results is None else [results]
    found = retrain(model, folders, dataset=dataset, draw=seed, data_dir=data_dir, progress=ScreenProgress())
    if as_json:
        write_text(
            json.dumps({"draw": seed, "trained": [asdict(one) | {"equal": one.equal} for one in found]}, indent=1)
        )
    else:
        for one in found:
            said = "equal" if one.equal else one.why or f"differs: {one.found} now"
            print(hanging(f"{one.title}: {one.recorded} recorded, {said}"))
        equal = sum(one.equal for one in found)
        print(f"{model}: {equal} of {len(found)} trainings give the recorded bytes (--draw {seed})")
    if not all(one.equal for one in found):
        raise typer.Exit(1)


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--chunks is a list of whole numbers, such as 0,3, not {text!r}")
    numbers = [int(part) for part in parts]
    distinct(numbers, "chunk")
    return numbers


def _show(verified: Verification) -> None:
    from odebench.cli.console import print_finding, print_table

    for name, numbers in verified.chunks.items():
        print(f"{name}: chunks {', '.join(map(str, numbers))} of 100 test images (--draw {verified.draw})")
    if verified.compared:
        columns = ["data", "T", "seed", "attack", "norm", "n", "chunk", "differ", "clean %", "robust %"]
        print_table(columns, [_row(chunk) for chunk in verified.compared], right=(1, 2, 5, 6, 7, 8, 9))
        print("n: the committed images compared with; differ: of so many letters")
        print("clean, robust: found now / committed, at the middle epsilon")
    for note in verified.notes:
        print(hanging(f"note: {note}"))
    for each in verified.findings:
        print_finding(each)
    compared, differ = verified.letters
    count = len(verified.findings)
    letters = f"{differ} of {compared} letters differ"
    refused = f"refused, {count} finding{'s' * (count > 1)}"
    print(f"{verified.id}: {'good' if verified.ok else refused}; {letters}")


def _row(chunk: ComparedChunk) -> list[str]:
    from odebench.protocol.spec import middle

    share = middle(chunk.shares)
    return [
        chunk.dataset,
        "" if chunk.horizon is None else f"{chunk.horizon:g}",
        str(chunk.train_seed),
        " ".join([chunk.attack, *([chunk.effort] if chunk.effort else [])]),
        chunk.norm,
        str(share.n),
        str(chunk.chunk),
        f"{chunk.differ} / {chunk.letters}" if chunk.letters else "-",
        f"{100 * share.clean_found:.0f} / {100 * share.clean_committed:.0f}",
        f"{100 * share.robust_found:.0f} / {100 * share.robust_committed:.0f}",
    ]
