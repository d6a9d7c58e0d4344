"""BertViz's head view and model view (Vig 2019) as one page that needs no network."""

from __future__ import annotations

import html
import json
import re
import secrets
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headwise.assets import ASSETS
from headwise.interp.drawing.paper.text import visible

SCRIPTS = ASSETS / "bertviz"

# The two pages ask require.js for jquery and d3; here that is a function which hands them the ones above it.
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" 
  content="default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 "Helvetica Neue", Helvetica, Arial, sans-serif; color: #1d2733; background: #fff }}
body {{ max-width: 1000px; margin: 32px auto; padding: 0 24px }}
h1 {{ font-size: 22px; font-weight: 600; margin: 0 0 4px }}
h2 {{ font-size: 17px; font-weight: 600; margin: 36px 0 2px }}
p, footer {{ color: #5d6874; margin: 0 0 14px }}
section {{ overflow-x: auto }}
footer {{ font-size: 12px; border-top: 1px solid #dde2e7; margin-top: 40px; padding-top: 10px }}
#head-view select {{ font: inherit }}
#head-view text {{ white-space: pre }}
</style>
<h1>{title}</h1>
<h2>Head view</h2>
<p>Queries left, keys right. Point at a token to see its edges; click a coloured square to switch its head,
double-click to see it alone.</p>
<section id="head-view"><span hidden>Layer: <select id="layer"></select></span><div id="vis"></div></section>
<h2>Model view</h2>
<p>Every head of the layer. Click one to enlarge it.</p>
<section id="model-view"><div id="vis"></div></section>
<footer>{footer} · drawn by BertViz {bertviz} (Vig 2019, Apache-2.0)
with d3 5.7.0 (BSD-3-Clause) and jQuery 3.7.1 (MIT)</footer>
<script type="application/json" id="metadata">{metadata}</script>
<script nonce="{nonce}">{jquery}</script>
<script nonce="{nonce}">{d3}</script>
<script nonce="{nonce}">
const HEADWISE = {shared};
const requirejs = (names, draw) => draw(jQuery, d3);
</script>
{head_view}
{model_view}
</html>
"""


def page(title: str, shared: Mapping[str, Any], footer: str, metadata: Mapping[str, Any], version: str) -> str:
    """``shared`` is what BertViz's scripts are given, ``metadata`` goes into the page as JSON.

    Tokens reach the page only as escaped JSON that BertViz writes as text, and the page's own policy forbids other
    scripts and all requests. Raises ImportError without the bertviz package.
    """
    return PAGE.format(
        nonce=(nonce := secrets.token_urlsafe(16)),
        title=html.escape(title),
        jquery=(SCRIPTS / "jquery.slim.min.js").read_text("utf-8"),
        d3=(SCRIPTS / "d3.min.js").read_text("utf-8"),
        shared=_script_json(shared),
        head_view=_script("head_view", nonce),
        model_view=_script("model_view", nonce),
        bertviz=html.escape(version),
        footer=html.escape(footer),
        metadata=_script_json(metadata),
    )


def _script(view: str, nonce: str) -> str:
    """One of BertViz's scripts, reading the shared data instead of a copy."""
    package = find_spec("bertviz")
    if package is None or not package.submodule_search_locations:
        raise ImportError("The HTML export draws with BertViz: pip install bertviz.")
    source = (Path(package.submodule_search_locations[0]) / f"{view}.js").read_text("utf-8")
    source = re.sub(r"require\.config\(\{.*?\n\}\);", "", source, flags=re.DOTALL)  # the addresses of the CDN
    root = view.replace("_", "-")
    source = source.replace("PYTHON_PARAMS;", f"{{...HEADWISE, root_div_id: '{root}'}};", 1)
    return f'<script nonce="{nonce}">\n{source}\n</script>'


def _script_json(value: Any) -> str:
    """JSON that can stand in a script: ASCII, and no ``<`` that could end it."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def short_labels(labels: tuple[str, ...], room: int = 13) -> list[str]:
    """Tokens as BertViz's columns have room for."""
    return [text if len(text) <= room else text[: room - 1] + "…" for text in map(visible, labels)]
