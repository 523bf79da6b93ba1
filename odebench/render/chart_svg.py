"""The charts of the leaderboard as SVG and, for the page, as Vega-Lite, made by altair and vl-convert."""

from __future__ import annotations

import re
from typing import Any

from odebench.render.chart_data import Chart, Panel
from odebench.render.vega import Marks, panel_chart

_TITLE = {"anchor": "start", "fontSize": 16, "subtitleFontSize": 12, "offset": 12}
_CONFIG = {
    "view": {"stroke": "#cccccc"},
    "axis": {
        "grid": True,
        "gridColor": "#e8e8e8",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "title": {"fontSize": 13, "fontWeight": "normal"},
    "legend": {
        "labelFontSize": 13,
        "symbolSize": 110,
        "title": None,
        "orient": "bottom",
        "direction": "horizontal",
        "columns": 6,
        "labelLimit": 240,
        "rowPadding": 6,
        "symbolOpacity": 1,
    },
}
_DIGEST = re.compile(r"<metadata>results sha256 ([0-9a-f]{64})</metadata>")


def chart_svg(chart: Chart, results_sha256: str) -> str:
    """The chart as SVG, with the digest of its results embedded. It needs altair and vl-convert."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(chart_specification(chart))
    head, bracket, rest = svg.partition(">")
    return f"{head}{bracket}<metadata>results sha256 {results_sha256}</metadata>{rest.rstrip()}\n"


def chart_specification(chart: Chart) -> dict[str, Any]:
    """The chart as Vega-Lite, its rows of panels below each other."""
    import altair

    data: dict[str, Marks] = {}
    rows = [[panel_chart(altair, chart, panel, data) for panel in row] for row in chart.rows]
    return {
        "$schema": altair.SCHEMA_URL,
        "title": {"text": chart.title, "subtitle": chart.subtitle, **_TITLE},
        "vconcat": [{"hconcat": row, "spacing": 30} for row in rows],
        "spacing": 24,
        "background": "white",
        "padding": 12,
        "config": _CONFIG,
        "datasets": data,
    }


def embedded_sha256(svg: str) -> str | None:
    """The digest of its results that a chart holds; None where there is none."""
    found = _DIGEST.search(svg)
    return None if found is None else found[1]


def panel_specification(chart: Chart, panel: Panel) -> dict[str, Any]:
    """A panel for the page as Vega-Lite, as wide as its place, with a tooltip for each point and interval."""
    import altair

    data: dict[str, Marks] = {}
    layers = panel_chart(altair, chart, panel, data, hover=True)
    return {
        "$schema": altair.SCHEMA_URL,
        **layers,
        "background": "transparent",
        "datasets": data,
        "autosize": {"type": "fit-x", "contains": "padding"},
    }
