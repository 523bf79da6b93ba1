"""The leaderboard as one HTML page that needs no network: tables to sort and filter, charts, model cards, claims.

It needs the extra `page`: jinja2 fills in the template and escapes every text, altair describes the charts, vl-convert
holds the Vega libraries that draw them. Whatever a result holds is shown as text, and the content security policy of
the page allows no script but its own, and no addresses but data: for its images.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from odebench.errors import UsageError
from odebench.leaderboard.example_images import GAIN
from odebench.render.chart_svg import panel_specification
from odebench.render.leaderboard_markdown import charts_of
from odebench.render.page_data import Link, PageContent, page_values, panel_key

_DIGEST = re.compile(r'<meta name="odebench-results" content="([0-9a-f]{64})">')


def check_page() -> None:
    """Raises UsageError, before anything is written, where no page can be made."""
    if missing := [name for name in ("altair", "vl_convert", "jinja2") if find_spec(name) is None]:
        raise UsageError(f"the page needs {' and '.join(missing)}: pip install 'odebench[page]'")


def page_html(content: PageContent, *, link: Link, sha256: str = "") -> str:
    """The page. `link` returns the address of a file; `sha256` is the digest of what it shows. See check_page."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("odebench.render", "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = files("odebench.render") / "template"
    specifications = _specifications(content)
    scripts = [_inline(template.joinpath("page.js").read_text(encoding="utf-8"))]
    if specifications:
        scripts.insert(0, _vega())
    html: str = environment.get_template("page.html").render(
        page_values(content, link=link),
        sha256=sha256,
        gain=GAIN,
        css=Markup(template.joinpath("page.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        script_hashes=[f"sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}" for s in scripts],
        specifications=specifications,
    )
    return html


def embedded_page_sha256(html: str) -> str | None:
    """The digest of its content that a page holds; None where there is none."""
    found = _DIGEST.search(html[:4096])
    return None if found is None else found[1]


@cache
def _vega() -> str:
    """The Vega libraries as one script; to put it together takes seconds."""
    import vl_convert

    return _inline(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _inline(script: str) -> str:
    """The script, escaped so that it cannot end its element."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)


def _specifications(content: PageContent) -> dict[str, Any]:
    """The Vega-Lite of every panel, by the key of its place in the page."""
    return {
        panel_key(number, place, index): panel_specification(chart, panel)
        for number, (_, chart) in enumerate(charts_of(content.tables))
        for place, row in enumerate(chart.rows)
        for index, panel in enumerate(row)
    }
