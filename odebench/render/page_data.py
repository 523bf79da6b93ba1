"""What the page shows, as plain values for its template: figures, models, claims."""

from __future__ import annotations

from dataclasses import dataclass, field

from odebench.analysis.claims import Claim
from odebench.leaderboard.example_images import ExampleStrip
from odebench.leaderboard.model_card import NO_PROVENANCE, Provenance, model_cards
from odebench.leaderboard.table import Table
from odebench.leaderboard.union import StoredResult
from odebench.render.claims import PAPER, UNITS, WORDS
from odebench.render.data_schema import SCHEMA_VERSION
from odebench.render.page_cards import model_values
from odebench.render.page_claims import answer_values, claim_values
from odebench.render.page_figures import UNION, Link, Values, figure_values, line_styles, view_values
from odebench.render.records import FIELDS
from odebench.render.summary_table import first_tables
from odebench.render.verdict import verdict


@dataclass(frozen=True)
class PageContent:
    """All that a page shows."""

    stored: tuple[StoredResult, ...]
    tables: tuple[Table, ...]
    claims: tuple[Claim, ...]
    strips: tuple[ExampleStrip, ...]
    provenance: Provenance = field(default=NO_PROVENANCE, compare=False)


def page_values(content: PageContent, *, link: Link) -> Values:
    """The values of the template, by name; `data` are those that the page's scripts read."""
    figures = figure_values(content.tables, link)
    models = model_values(model_cards(content.tables, content.strips), content.provenance, link)
    notes = figures.pop("notes")
    alone = {row[figures["columns"].index("attack")] for row in figures["rows"]} - {UNION}
    return {
        "data": {
            "schema_version": SCHEMA_VERSION,
            "union": UNION,
            "exported": [*FIELDS, "attack", "file"],
            "views": view_values(content.tables),
            "lines": line_styles(content.tables),
            **figures,
        },
        "count": len(figures["rows"]),
        "attacks": sorted(alone),
        "union": UNION,
        "notes": dict(sorted(notes.items())),
        "models": models,
        "answers": answer_values(content.claims),
        "verdict": verdict(content.claims, first_tables(content.tables), adversarial=content.provenance.adversarial),
        "claims": claim_values(content.claims),
        "texts": {"claims": UNITS, "words": WORDS, "paper": PAPER},
    }
