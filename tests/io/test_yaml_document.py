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
    "a:\t1\n",
    "a: 1\t\nb: 2\n",
    "a: [1,\t2]\n",
    "a: !\n",
    "a: 1\n\ufeffb: 2\n",
    "a: |#x\n  y\n",
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


@pytest.mark.parametrize(
    "number", ["0764", "8:20", "0x1f", "0b11", "!!int _0764", "!!int ' 8:20'", "!!int '\uff1500'", "!!float ' 8:20'"]
)
def test_a_number_that_is_another_to_a_reader_is_refused(number: str) -> None:
    assert "does not read" in str(read(f"n: {number}\n"))


@pytest.mark.parametrize(
    ("number", "value"), [("0", 0), ("-12", -12), ("1_000", 1000), ("01.5", 1.5), (".5", 0.5), ("1.5e-3", 1.5e-3)]
)
def test_decimal_numbers_are_read(number: str, value: float) -> None:
    found = read(f"n: {number}\n")
    assert isinstance(found, Document)
    assert found.value == {"n": value}


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML was built without libyaml")
@pytest.mark.parametrize("text", [*(path.read_text(encoding="utf-8") for path in FILES), *TEXTS], ids=lambda _: "")
def test_values_lines_and_errors_are_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = read(text)
    monkeypatch.setattr(yaml_document, "QuickLoader", None)
    assert quick == read(text)
