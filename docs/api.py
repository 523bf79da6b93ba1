"""The page docs/api.md, made from the docstrings of odebench's public names: python docs/api.py > docs/api.md"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import odebench
from odebench.io.text import fill

INTRODUCTION = (
    "The public names of `odebench`, made from their docstrings by `python docs/api.py`. Examples: "
    "[README](../README.md#your-own-model), [plugins.md](plugins.md). What a `Result` holds: [result.md](result.md)."
)
WIDTH = 110


def page() -> str:
    """The whole page: functions, then classes, each with signature, docstring and public members."""
    values = {name: getattr(odebench, name) for name in odebench.__all__ if not name.startswith("_")}
    parts = ["# Python API", "", fill(INTRODUCTION)]
    for title, is_class in (("Functions", False), ("Classes", True)):
        parts += ["", f"## {title}"]
        for name, value in values.items():
            if inspect.isclass(value) == is_class:
                text = inspect.getdoc(value) or ""
                parts += ["", f"### {name}", "", *_signature(name, value), text, *_members(value)]
    return "\n".join([*parts, ""])


def _signature(name: str, value: Any) -> list[str]:
    """A block of code; of a pydantic model the names of its fields, whose types the page on results or the code has."""
    if inspect.isclass(value) and issubclass(value, Exception):
        return []
    fields = getattr(value, "model_fields", None)
    words = ["*", *(f"{field}=..." for field in fields)] if fields else list(_parameters(value))
    lines = [f"{name}("]
    for word in words:
        last = f"{lines[-1]} {word}," if lines[-1] != f"{name}(" else ""
        if last and len(last) <= WIDTH:
            lines[-1] = last
        else:
            lines.append(f"    {word},")
    return ["```text", *lines, ")", "```", ""]


def _parameters(value: Any) -> Iterator[str]:
    keyword_only = False
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            yield "*"
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        yield f"{parameter.name}: {parameter.annotation}" + (" = ..." if "<" in default else default)


def _members(value: Any) -> list[str]:
    """The methods and properties of a class that have a docstring."""
    if not inspect.isclass(value) or issubclass(value, Exception):
        return []
    lines = []
    for name, member in vars(value).items():
        bare = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if not name.startswith("_") and (inspect.isfunction(bare) or isinstance(bare, property)) and bare.__doc__:
            text = " ".join((inspect.getdoc(bare) or "").split())
            lines.append(f"- `{name}{'' if isinstance(bare, property) else '()'}`: {text}")
    return ["", *lines] if lines else []


if __name__ == "__main__":
    print(page(), end="")
