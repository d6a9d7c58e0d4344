"""What leaves the house: figures (PNG, SVG), numbers (CSV, NPZ) and BertViz's pages (HTML).

>>> from interp import capture, export
>>> from interp.view import head_view
>>> from models import load
>>> cap = capture(load("tiny-decoder"), "The people of the United States")
>>> picture = export.to_png(head_view(cap, cap.calls[0], head=0), "layer 0 · head 0", stamp=export.stamp(cap))
>>> picture[1:4]
b'PNG'
"""

from __future__ import annotations

import csv
import datetime
import html
import io
import json
import os
import re
import secrets
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp.call import AttentionCall
from interp.capture import Capture
from interp.view import HeadView

VERSION = "0.1.0"  # of Headwise
NPZ_BYTES = 256 * 2**20  # weights one NPZ may hold
BERTVIZ_TOKENS = 64  # BertViz draws H·Q·K lines at once; above this the browser stalls
ASSETS = Path(__file__).parent.parent / "assets" / "bertviz"


def stamp(cap: Capture) -> dict[str, Any]:
    """What an export is of, JSON-able: model, how it ran, versions, tokens, edits, notes, date (UTC)."""
    subject = cap.subject
    private = os.path.isabs(subject.origin)  # a figure is published, the folders of its maker are not
    return {
        "model": subject.name,
        "origin": Path(subject.origin).name if private else subject.origin,
        "family": subject.family,
        "parameters": subject.parameters,
        "dtype": str(subject.dtype).removeprefix("torch."),
        "attention": subject.implementation,
        "tokens": {name: len(axis) for name, axis in cap.axes.items()},
        "edits": [repr(edit) for edit in cap.edits],
        "unseen": [str(module) for module in cap.unseen],
        "notes": list(cap.notes),
        "headwise": VERSION,
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def to_png(
    view: HeadView, title: str = "", scale: str = "linear", theme: str = "light", *,
    quantity: str = "weights", stamp: Mapping[str, Any] | None = None,
) -> bytes:  # fmt: skip
    """One head as a figure for print, two pixels for each CSS pixel.

    Colours and scale are those of the app's canvas: ``scale`` "linear" or "log" (five decades), ``theme``
    "light" or "dark". Forbidden cells are hatched, and weight on them stands in the alarm colour.
    ``quantity`` is what ``view`` was made with. ``stamp`` (of ``stamp(cap)``) goes into the small print and,
    as JSON, into the text chunk "headwise". Raises ValueError for an unknown scale, theme or quantity.
    """
    from interp import figure

    return figure.draw(figure.Png, view, title, scale, theme, quantity, *_print(view, stamp))


def to_svg(
    view: HeadView, title: str = "", scale: str = "linear", theme: str = "light", *,
    quantity: str = "weights", stamp: Mapping[str, Any] | None = None,
) -> bytes:  # fmt: skip
    """The same figure as vectors and text, stamp in ``<metadata>``; above 96 cells a side one picture."""
    from interp import figure

    return figure.draw(figure.Svg, view, title, scale, theme, quantity, *_print(view, stamp))


def to_csv(view: HeadView) -> bytes:
    """One head as a matrix for a spreadsheet: queries down, keys across, both named ``index:'token'``.

    Values round-trip to the same float32; no value is an empty field. UTF-8 with a byte order mark, without
    which Excel reads tokens in the wrong alphabet (in Python: ``pandas.read_csv(file, index_col=0)``). The
    quotes keep a spreadsheet from reading ``12:30`` as a time, and nothing can start a formula.
    """

    def names(labels: tuple[str, ...], axis: int) -> list[str]:
        first, size, whole = view.origin[axis], view.factor[axis], view.shape[axis]
        starts = range(first, first + size * len(labels), size)
        places = [str(s) if size == 1 else f"{s}–{min(s + size, whole) - 1}" for s in starts]
        return [f"{place}:'{_one_line(label)}'" for place, label in zip(places, labels, strict=True)]

    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["query / key", *names(view.keys, 1)])
    for name, row in zip(names(view.queries, 0), view.matrix.cpu().float().numpy(), strict=True):
        writer.writerow([name, *("" if np.isnan(value) else str(value) for value in row)])
    return out.getvalue().encode("utf-8-sig")


def to_npz(cap: Capture, call: AttentionCall | None = None) -> bytes:
    """Exact weights of all heads of one call, or of every call, for ``numpy.load``.

    One call: ``weights`` (B, H, Q, K) float32, ``queries`` (Q,) and ``keys`` (K,) token texts,
    ``query_offsets`` (Q, 2) and ``key_offsets`` (K, 2) characters where the axis has them, and ``metadata``,
    a JSON string. Every call: the same names behind ``stack.layer.``, such as ``decoder.0.weights``. Raises
    ValueError above 256 MB of weights.
    """
    calls = cap.calls if call is None else (call,)
    need = sum(4 * c.batch * c.heads * c.queries * c.keys for c in calls)
    if need > NPZ_BYTES:
        what = f"All {len(calls)} calls of this run" if call is None else f"Layer {call.layer}"
        advice = "Export one layer" if call is None and len(calls) > 1 else "Use a shorter text"
        limit = f"an NPZ holds up to {NPZ_BYTES // 2**20} MB"
        raise ValueError(f"{what} would take {need / 2**20:,.0f} MB of weights; {limit}. {advice}.")
    arrays, described = {}, []
    for number, c in enumerate(calls):
        prefix = "" if call is not None else f"{c.stack}.{c.layer}."
        if prefix + "weights" in arrays:  # the same layer twice in one run
            prefix += f"call{number}."
        weights = np.empty(c.shape, np.float32)
        for start, stop, band in c.bands():
            weights[:, :, start:stop] = band.cpu().numpy()
        arrays[prefix + "weights"] = weights
        for side, plural in (("query", "queries"), ("key", "keys")):
            axis = cap.axis(c, side)
            arrays[prefix + plural] = np.array(axis.labels, dtype=np.str_)
            if axis.offsets is not None:
                arrays[f"{prefix}{side}_offsets"] = np.array(axis.offsets, np.int64)
        described.append(
            {
                "array": prefix + "weights",
                "module": c.name,
                "stack": c.stack,
                "layer": c.layer,
                "kind": c.kind,
                "seen": c.seen,
            }
        )
    arrays["metadata"] = np.array(json.dumps({**stamp(cap), "calls": described}))
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def to_html(cap: Capture, stack: str | None = None, layer: int = 0) -> str:
    """BertViz's head view and model view (Vig 2019) of one layer as one page that needs no network.

    First sample, all heads; of cross-attention the queries are on the left. Weights are rounded to five
    decimals. Tokens reach the page only as escaped JSON that BertViz writes as text, and the page's own
    policy forbids other scripts and all requests. Raises ValueError above 64 tokens, IndexError for a layer
    that is not there, ImportError without the bertviz package.
    """
    call = cap.find(layer, stack)
    if (tokens := max(call.queries, call.keys)) > BERTVIZ_TOKENS:
        raise ValueError(f"BertViz draws up to {BERTVIZ_TOKENS} tokens; this text has {tokens:,}. Shorten it.")
    weights = torch.cat([band[0] for _, _, band in call.bands()], 1)  # (H, Q, K)
    weights = weights.cpu().double().numpy().round(5)
    heads = list(range(call.heads))
    shared = {
        "attention": [
            {
                "name": None,
                "attn": [np.nan_to_num(weights, nan=0.0).tolist()],
                "left_text": _short_labels(cap.axis(call, "query").labels),
                "right_text": _short_labels(cap.axis(call, "key").labels),
            }
        ],
        "default_filter": "0", "display_mode": "light", "layer": layer, "heads": None,
        "include_layers": [layer], "include_heads": heads, "total_heads": call.heads,
    }  # fmt: skip
    about = stamp(cap)
    small = _stamp_parts(about) + [f"weights are NaN in {int(np.isnan(weights).sum()):,} places"] * bool(
        np.isnan(weights).any()
    )
    what = "cross-attention" if call.kind == "cross" else call.stack
    return PAGE.format(
        nonce=(nonce := secrets.token_urlsafe(16)),
        title=html.escape(f"{cap.subject.name} · {what} · layer {layer}"),
        jquery=(ASSETS / "jquery.slim.min.js").read_text("utf-8"),
        d3=(ASSETS / "d3.min.js").read_text("utf-8"),
        shared=_script_json(shared),
        head_view=_bertviz("head_view", nonce),
        model_view=_bertviz("model_view", nonce),
        bertviz=html.escape(_version("bertviz") or ""),
        footer=html.escape(" · ".join(small)),
        metadata=_script_json(about),
    )


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


def _bertviz(view: str, nonce: str) -> str:
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


def _short_labels(labels: tuple[str, ...], room: int = 13) -> list[str]:
    """Tokens as BertViz's columns have room for."""
    from interp.figure import visible

    return [text if len(text) <= room else text[: room - 1] + "…" for text in map(visible, labels)]


def _one_line(label: str) -> str:
    """A token on one line: line breaks and control characters as code writes them, spaces as they are."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in label)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _print(view: HeadView, about: Mapping[str, Any] | None) -> tuple[dict[str, Any], list[str]]:
    """A figure's metadata and the parts of its small print."""
    parts = []
    if max(view.factor) > 1:
        parts.append(f"each cell is the largest of {view.factor[0]} × {view.factor[1]} positions")
    for axis, name in enumerate(("queries", "keys")):
        first, count = view.origin[axis], view.matrix.shape[axis] * view.factor[axis]
        last = min(first + count, view.shape[axis]) - 1
        if last - first + 1 < view.shape[axis]:
            parts.append(f"{name} {first}–{last} of {view.shape[axis]}")
    about = dict(about) if about is not None else {"headwise": VERSION}
    return about, [*parts, *view.left_out, *_stamp_parts(about)]


def _stamp_parts(about: Mapping[str, Any]) -> list[str]:
    """A stamp in words."""
    parts = []
    if "model" in about:
        parts.append(about["origin"] if "@" in about["origin"] else about["model"])  # a hub id with its revision
        parts.append(f"{_amount(about['parameters'])} parameters")
        parts += [about["dtype"], f"attention: {about['attention']}"]
        parts += [
            f"{count:,} {'tokens' if name == 'input' else name + ' tokens'}" for name, count in about["tokens"].items()
        ]
        parts += [f"edited: {edit}" for edit in about["edits"]] + about["notes"]
        if about["unseen"]:
            parts.append(f"{len(about['unseen'])} attention modules were not seen")
        parts.append(
            f"torch {about['torch']}" + (f", transformers {about['transformers']}" if about["transformers"] else "")
        )
    return [*parts, f"Headwise {about['headwise']}" + (f", {about['date'][:10]}" if "date" in about else "")]


def _amount(count: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)
