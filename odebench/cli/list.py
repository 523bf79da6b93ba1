"""`odebench models`, `attacks`, `datasets`, `info` and `schema`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from odebench.attack.registry import ATTACKS
from odebench.cli.options import AsJson, DataDir, one_of
from odebench.cli.root import app
from odebench.dataset.registry import DATASETS
from odebench.io.text import fill
from odebench.model.registry import MODELS
from odebench.registry import RegistryEntry

_PASSES = "passes: gradients or queries per image and epsilon, at most, at the defaults"
_OF_DATA = (
    "test: how many images; linf epsilons: default radii, of pixels in [0, 1]",
    "on disk: what is not there is downloaded by the first run, or it says what to do",
)


def _names(incomplete: str) -> list[str]:
    from odebench.submission.submitted_model import entry_names

    known = [*MODELS.entries(), *ATTACKS.entries(), *DATASETS.entries(), *entry_names()]
    return [name for name in known if name.startswith(incomplete)]


@app.command(epilog="Examples:\n\nodebench models\n\nodebench models --json")
def models(as_json: AsJson = False) -> None:
    """List the models and entries: name, what each is, where it comes from."""
    from odebench.submission.submitted_model import entry_summaries

    known, (summaries, problems) = MODELS.entries(), entry_summaries()
    entries = [
        RegistryEntry(name, str(folder), summary, "entry")
        for name, (folder, summary) in summaries.items()
        if name not in known
    ]
    _list([*known.values(), *entries], as_json, notes=("entry: submitted, with its own weights",))
    for problem in problems.values():
        print(f"odebench: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(1)


@app.command(epilog="Examples:\n\nodebench attacks\n\nodebench attacks --json")
def attacks(as_json: AsJson = False) -> None:
    """List the attacks: name, what each is, norms, and the most gradients or queries per image."""
    from odebench.cli.details import details_of

    entries = list(ATTACKS.entries().values())
    details = {entry.name: details_of(ATTACKS, entry.name) for entry in entries}
    more = {
        name: [" ".join(one.get("norms", [])), str(one["passes"]) if one.get("passes") else ""]
        for name, one in details.items()
    }
    _list(entries, as_json, columns=("norms", "passes"), more=more, notes=(_PASSES,))


@app.command(epilog="Examples:\n\nodebench datasets\n\nodebench datasets --data-dir ~/images --json")
def datasets(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the data sets: test images, default epsilons, what is on disk; and the image folders in the data folder."""
    from odebench.cli.details import details_of
    from odebench.dataset.data_folder import data_folder, image_folders

    entries, folder = dict(DATASETS.entries()), data_folder(data_dir)
    for name, path in sorted(image_folders(folder).items()):
        if name not in entries:
            entries[name] = RegistryEntry(name, str(path), "image folder", str(path))
    more = {}
    for name in entries:
        one: dict[str, Any] = {"on disk": True}
        if name in DATASETS.entries():
            one = details_of(DATASETS, name, data_folder=folder)
        here = {True: "yes", False: "no", None: ""}[one.get("on disk")]
        epsilons = " ".join(one.get("epsilons", {}).get("linf", []))
        more[name] = [str(one.get("sizes", {}).get("test", "")), epsilons, here]
    _list(list(entries.values()), as_json, columns=("test", "linf epsilons", "on disk"), more=more, notes=_OF_DATA)


@app.command(epilog="Examples:\n\nodebench info pgd\n\nodebench info kd-ode --json\n\nodebench info solver gap")
def info(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="A model, an attack, a data set or an entry; a check or its number, a flag, a letter, an effort, or a "
            "word such as 'not examined' or 'flags'.",
            autocompletion=_names,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Explain a model, an attack, a data set or an entry; or a check, a flag, a letter or a word of results."""
    from odebench.cli.console import write_text
    from odebench.cli.details import details_of
    from odebench.cli.glossary import explained, terms
    from odebench.errors import UsageError, nearest
    from odebench.submission.entry import read_entry
    from odebench.submission.submitted_model import entry_summaries
    from odebench.submission.training_words import entry_words

    name = " ".join(words)
    found: list[dict[str, Any]] = []
    for registry in (MODELS, ATTACKS, DATASETS):
        if (entry := registry.entries().get(name)) is not None:
            about = {"name": name, "kind": registry.kind, "summary": entry.summary, "origin": entry.origin}
            found.append(about | details_of(registry, name, plugins=True))
    entries, problems = entry_summaries() if not found else ({}, {})
    if name in problems:
        raise problems[name]
    if name in entries:
        folder, summary = entries[name]
        about = entry_words(read_entry(folder))
        found.append({"name": name, "kind": "entry", "summary": summary, "origin": str(folder), **about})
    found += explained(name)
    if not found:
        raise UsageError(
            f"unknown name {name!r};{nearest(name, [*_names(''), *terms()])} `odebench models`, `attacks` and "
            "`datasets` list names; checks (1 to 22), flags, letters, efforts and words such as 'not examined' are "
            "explained too"
        )
    if as_json:
        write_text(json.dumps(found, indent=1))
        return
    for number, one in enumerate(found):
        if number:
            print()
        for key, value in one.items():
            if value not in (None, {}, [], ""):
                write_text(fill(f"{key}: {_in_words(value)}"))


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_in_words(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)


@app.command(epilog="Examples:\n\nodebench schema > result.schema.json\n\nodebench schema --format md")
def schema(
    form: Annotated[str, typer.Option("--format", "-f", help="json, or md: a page with a table per part.")] = "json",
) -> None:
    """Print the JSON Schema of a result, with what each property holds and in which unit."""
    from odebench.cli.console import write_text
    from odebench.render.schema_markdown import schema_markdown
    from odebench.result.described import result_schema

    if one_of("--format", form, "json", "md") == "md":
        write_text(schema_markdown())
    else:
        write_text(json.dumps(result_schema(), indent=1))


def _list(
    entries: list[RegistryEntry],
    as_json: bool,
    *,
    columns: tuple[str, ...] = (),
    more: Mapping[str, list[str]] | None = None,
    notes: tuple[str, ...],
) -> None:
    from odebench.cli.console import print_table, write_text

    if as_json:
        fields = ("name", "summary", "origin")
        write_text(json.dumps([{field: getattr(entry, field) for field in fields} for entry in entries], indent=1))
    else:
        rows = [[one.name, one.summary, *(more or {}).get(one.name, []), one.origin] for one in entries]
        print_table(["name", "what it is", *columns, "from"], rows)
        print(*notes, sep="\n")
        print("more about one: odebench info NAME")
