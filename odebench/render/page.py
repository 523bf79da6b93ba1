"""The leaderboard as one HTML page that needs no network: answers, charts, a table to filter, a panel a model.

Jinja2 fills in the template and escapes every text. The page's own script draws the charts
from the figures that it holds. Whatever a result holds is shown as text, and the content security policy of the page
allows no script but its own, and no addresses but data: for its images.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from odebench.leaderboard.example_images import GAIN
from odebench.leaderboard.model_card import AGAIN
from odebench.render.chart_data import COLOURS
from odebench.render.page_data import PageContent, page_values
from odebench.render.page_figures import Link

SCRIPTS = ("state.js", "table.js", "chart.js", "page.js")
_DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def page_html(content: PageContent, *, link: Link, root: str = "") -> str:
    """The page. `link` returns the address of a file; `root` is that of the repository, if the page lies in it."""
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
    parts = [template.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS]
    script = _inline("\n".join(["(() => {", '"use strict";', *parts, "})();"]))
    values = page_values(content, link=link)
    html: str = environment.get_template("page.html").render(
        values | {"data": Markup(_data_text(values["data"]))},
        version=version("odebench"),
        root=root,
        gain=GAIN,
        again=f"{AGAIN[0].upper()}{AGAIN[1:]}",
        colours=COLOURS,
        css=Markup(template.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )
    return html


def data_of(html: str) -> Any:
    """The figures that a page holds, as page_values has them under `data`; None where there are none."""
    found = _DATA.search(html)
    try:
        return None if found is None else json.loads(found[1])
    except ValueError:
        return None


def _data_text(data: dict[str, Any]) -> str:
    """The figures as JSON, a line each so that a change can be read, with no character that could end a script."""
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in data.items() if name != "rows"]
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in data["rows"])
    text = "{" + ",\n".join([*lines, f'"rows": [\n{rows}\n]']) + "}"
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _inline(script: str) -> str:
    """The script, escaped so that it cannot end its element."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)
