"""What the written LEADERBOARD.md looks like to a reader."""

from __future__ import annotations

from pathlib import Path

from odebench.render.markdown_tables import item

BOARD = Path(__file__).parents[2] / "leaderboard" / "LEADERBOARD.md"


def test_what_leads_an_item_is_bold_and_the_rest_is_text() -> None:
    assert item("it falls *", lead="Does it?") == r"- **Does it?** it falls \*"
    text = BOARD.read_text(encoding="utf-8")
    assert "\n- **Do Neural ODEs withstand attacks?** No: on " in text
    assert r"\*\*" not in text
