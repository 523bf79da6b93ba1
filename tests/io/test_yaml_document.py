"""Both ways to read YAML, with libyaml and without, give the same values, lines and words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from odebench.errors import UsageError
from odebench.io import yaml_document
from odebench.io.yaml_document import Document, parse_document

ROOT = Path(__file__).parents[2]
FILES = [
    *sorted((ROOT / "benchmarks" / "protocols").glob("*.yaml")),
    *sorted((ROOT / "leaderboard").glob("**/*.yaml")),
]
TEXTS = [
    "a: 1\nb: [1, 2.5, yes, null, 2020-01-01, '1']\nc: {d: &x [e], f: *x}\n",
    "base: &b {a: 1}\nmore:\n  <<: *b\n  c: 2\n",
    "text: |\n  one\n  two\nfolded: >\n  one\n  two\n",
    "é: 'ü \\u263a'\n# a comment\nlast: \"\\u263a\"",
    "",
    "a: 1\na: 2\n",
    "a: [1, 2\nb: 3\n",
    "a: b: c\n",
    "a:\n\t- 1\n",
    "a: &x [*x]\n",
    "a: *nowhere\n",
    "a: !!int x\n",
    "a: !strange x\n",
    "? [a, b]\n: 1\n",
    "a: \x07\n",
    "--- 1\n--- 2\n",
    "[" * 5000,
    "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcd", "bcde", strict=True)),
]


def read(text: str) -> Document | str:
    try:
        return parse_document(text, "it")
    except UsageError as error:
        return str(error)


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML was built without libyaml")
@pytest.mark.parametrize("text", [*(path.read_text(encoding="utf-8") for path in FILES), *TEXTS], ids=lambda _: "")
def test_values_lines_and_errors_are_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = read(text)
    monkeypatch.setattr(yaml_document, "QuickLoader", None)
    assert quick == read(text)
