"""`odebench models`, `attacks`, `datasets` and `schema`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from odebench.attack.registry import ATTACKS
from odebench.cli.options import AsJson, DataDir, one_of
from odebench.cli.root import app
from odebench.dataset.registry import DATASETS
from odebench.model.registry import MODELS
from odebench.registry import RegistryEntry


@app.command(epilog="Examples:\n\nodebench models\n\nodebench models --json")
def models(as_json: AsJson = False) -> None:
    """List the models: name, one line, where each comes from."""
    _list(list(MODELS.entries().values()), as_json)


@app.command(epilog="Examples:\n\nodebench attacks\n\nodebench attacks --json")
def attacks(as_json: AsJson = False) -> None:
    """List the attacks: name, one line, where each comes from."""
    _list(list(ATTACKS.entries().values()), as_json)


@app.command(epilog="Examples:\n\nodebench datasets\n\nodebench datasets --data-dir ~/images --json")
def datasets(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the data sets, and the image folders in the data folder."""
    from odebench.dataset.data_folder import data_folder, image_folders

    entries = dict(DATASETS.entries())
    for name, path in sorted(image_folders(data_folder(data_dir)).items()):
        if name not in entries:
            entries[name] = RegistryEntry(name, str(path), "image folder", str(path))
    _list(list(entries.values()), as_json)


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


def _list(entries: list[RegistryEntry], as_json: bool) -> None:
    from odebench.cli.console import print_table, write_text

    if as_json:
        fields = ("name", "summary", "origin")
        write_text(json.dumps([{field: getattr(entry, field) for field in fields} for entry in entries], indent=1))
    else:
        print_table(["name", "what it is", "from"], [[entry.name, entry.summary, entry.origin] for entry in entries])
