"""The page docs/result.md: every property of a result with its type and meaning, made from the JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from odebench.io.text import fill
from odebench.result.described import SCHEMA_ID, result_schema
from odebench.result.outcome import MEANINGS

INTRODUCTION = (
    "A result is one JSON file per evaluation; `odebench show FILE` explains one. This page is made from the schema "
    f"that `odebench schema` prints (`{SCHEMA_ID}`, JSON Schema draft 2020-12): `odebench schema --format md`. Files "
    "of version 1 lack found.trained_on, found.candidates, cost.stages and doubt."
)


def schema_markdown() -> str:
    """The page, with a table per definition in the order in which a result refers to them."""
    schema = result_schema()
    parts = ["# The result file", "", fill(INTRODUCTION), "", "## Letters", ""]
    parts += ["| letter | the image is |", "|---|---|"]
    parts += [f"| {letter} | {meaning} |" for letter, meaning in MEANINGS.items()]
    for name in _in_order(schema):
        content = schema if name == schema["title"] else schema["$defs"][name]
        parts += ["", f"## {name}", "", fill(" ".join(content["description"].split())), ""]
        parts += ["| key | type | what it holds |", "|---|---|---|"]
        for key, value in content["properties"].items():
            parts.append(f"| {key} | {_type(value)} | {value['description']} |")
    return "\n".join([*parts, ""])


def _in_order(schema: dict[str, Any]) -> list[str]:
    """The definitions that have properties: the result, then those that each refers to, once."""
    names = [schema["title"]]
    for name in names:
        content = schema if name == schema["title"] else schema["$defs"][name]
        for reference in _references(content.get("properties", {})):
            if reference not in names and "properties" in schema["$defs"][reference]:
                names.append(reference)
    return names


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield str(value["$ref"]).rpartition("/")[2]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _references(one)


def _type(value: dict[str, Any]) -> str:
    """The type of a property in a few words: number or null, list of EpsilonResult, one of pass, flag, skipped."""
    if "$ref" in value:
        name = str(value["$ref"]).rpartition("/")[2]
        return "any JSON" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(_type(one) for one in value["anyOf"])
    if "enum" in value or "const" in value:
        return "one of " + ", ".join(map(str, value.get("enum", [value.get("const")])))
    if value["type"] == "array":
        return f"list of {_type(value['items'])}"
    if value["type"] == "object":
        return f"object of {_type(value['additionalProperties'])}"
    return str(value["type"])
