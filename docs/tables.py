"""Writes the tables of README.md and docs/study.md that are made from published results: python docs/tables.py

They stand between `<!-- name -->` and `<!-- /name -->`: verdict, claims, where distillation helps (map), and all models
on digits at one horizon (table).
"""

from __future__ import annotations

import re
from pathlib import Path

from odebench.analysis.claims import claims_of
from odebench.cli.leaderboard import asked_claims
from odebench.leaderboard.build import build_tables
from odebench.leaderboard.read import read_results
from odebench.render.claims import overview
from odebench.render.gain_map import map_table
from odebench.render.summary_table import at_one_horizon, middle_tables
from odebench.render.verdict import verdict
from odebench.submission.provenance import provenance

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "study.md")
DATASETS = ("digits", "fashion-mnist", "cifar10-jpeg")


def tables() -> dict[str, str]:
    """The tables, by the name in their marks."""
    published = ROOT / "leaderboard" / "results"
    ranked, _ = build_tables(read_results([published])[0])
    by_name = [middle_tables([table for table in ranked if table.dataset == name])[0] for name in DATASETS]
    asked = asked_claims(ROOT / "leaderboard" / "claims.yaml")
    claims = claims_of(asked, read_results([published, ROOT / "leaderboard" / "study"])[0])
    answers = verdict(claims, by_name, adversarial=provenance(ROOT / "leaderboard" / "entries").adversarial)
    lines = {
        "verdict": [f"- **{question}** {answer}" for question, answer in answers],
        "claims": overview(claims),
        "map": map_table(claims),
        "table": at_one_horizon(by_name[0], 1.0),
    }
    return {name: "\n".join(table) for name, table in lines.items()}


def filled(text: str, made: dict[str, str]) -> str:
    """A page with these tables in its marks."""
    for name, table in made.items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda found, table=table: f"{found[1]}{table}\n{found[2]}",
            text, flags=re.DOTALL,
        )  # fmt: skip
    return text


if __name__ == "__main__":
    made = tables()
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), made), encoding="utf-8")
