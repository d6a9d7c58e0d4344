"""What leaves the house: figures (PNG, SVG, PDF), numbers (CSV, NPZ) and BertViz's pages (HTML).

>>> from headwise import capture, load
>>> from headwise.interp.drawing import files
>>> from headwise.interp.drawing.matrix import head_view
>>> cap = capture(load("tiny-decoder"), "The people of the United States")
>>> picture = files.to_png(head_view(cap, cap.calls[0], head=0), stamp=files.stamp(cap))
>>> picture[1:4]
b'PNG'
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwise.interp.analysis.attribution import Attribution
from headwise.interp.attention.axes import Axis
from headwise.interp.attention.call import AttentionCall
from headwise.interp.drawing import attributions, bertviz
from headwise.interp.drawing.circuits import Drawn
from headwise.interp.drawing.matrix import Matrix, Span, axis_name, one_of_many
from headwise.interp.drawing.paper import bars, circuit, heatmap, maps, picture, table
from headwise.interp.drawing.paper.pdf import Pdf
from headwise.interp.drawing.paper.pens import Paper, Png, Print, Svg
from headwise.interp.drawing.paper.sound import times
from headwise.interp.drawing.streams import Cells
from headwise.interp.run.capture import Capture
from headwise.interp.subject import Subject

VERSION = "0.1.0"  # of Headwise
PENS = {"png": Png, "svg": Svg, "pdf": Pdf}
PLAIN = Paper()  # nothing is asked of a figure
NPZ_BYTES = 256 * 2**20  # weights one NPZ may hold
BERTVIZ_TOKENS = 64  # BertViz draws H·Q·K lines at once; above this the browser stalls


def stamp(cap: Capture, minuend: Capture | None = None) -> dict[str, Any]:
    """What an export is of, JSON-able: model, how it ran, versions, tokens, edits, notes, date (UTC).

    ``minuend``: what ``cap`` was subtracted from, where the export is of a difference.
    """
    subject = cap.subject
    return {
        "model": subject.name,
        "origin": _origin(subject),
        **({} if minuend is None else {"minuend": {"model": minuend.subject.name, "origin": _origin(minuend.subject)}}),
        "family": subject.family,
        "promises": {stack: str(cap.stack(stack)[0].claim) for stack in cap.stacks},
        "parameters": subject.parameters,
        "dtype": subject.precision,
        "attention": subject.implementation,
        "tokens": {name: len(axis) for name, axis in cap.axes.items()},
        "axes": {name: about for name, axis in cap.axes.items() if (about := _described(axis))},
        "edits": [repr(edit) for edit in cap.edits],
        "unseen": [str(module) for module in cap.unseen],
        "notes": list(cap.notes),
        "headwise": VERSION,
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _origin(subject: Subject) -> str:
    """A figure is published, the folders of its maker are not."""
    return Path(subject.origin).name if os.path.isabs(subject.origin) else subject.origin


def _described(axis: Axis) -> dict[str, Any]:
    """The picture or the recording that an axis lies on, JSON-able. ``box`` is in pixels of a picture of ``size``."""
    about: dict[str, Any] = {}
    if axis.grid is not None:
        about["grid"] = [int(n) for n in axis.grid]
    if axis.picture is not None:
        about["box"] = [float(edge) for edge in axis.picture.box]
        about["size"] = [int(n) for n in axis.picture.pixels.shape[1::-1]]
    if axis.sound is not None:
        about |= {"step": float(axis.sound.step), "seconds": float(axis.sound.seconds)}
    return about


def to_png(
    matrix: Matrix,
    *,
    scale: str = "linear",
    theme: str = "light",
    stamp: Mapping[str, Any] | None = None,
    paper: Paper = PLAIN,
) -> bytes:
    """A matrix as a figure for print, two pixels for each CSS pixel.

    Colours and scale are those of the app's canvas: ``scale`` "linear" or "log" (five decades), ``theme``
    "light" or "dark". Forbidden cells are hatched, and weight on them stands in the alarm colour.
    A difference of two heads is coloured from zero to both sides; "log" is linear below a thousandth of its end.
    Positions that are frames of a recording are told in seconds, with the spectrogram of the columns above them.
    ``stamp`` (of ``stamp(cap)``) goes into the small print and, as JSON, into the text chunk "headwise".
    ``paper`` is what a paper asks of it: a width, a size of letters, other colours, where the scale ends; with a width
    it has at least 300 pixels an inch. Raises ValueError for an unknown scale or theme, and for a width in which the
    labels leave no room.
    """
    look = {"scale": scale, "theme": theme, "stamp": stamp, "paper": paper}
    return heatmap.draw(matrix, _print(Png, matrix, _parts_shown(matrix), **look))


def to_svg(matrix: Matrix, **look: Any) -> bytes:
    """The same figure as vectors and text, stamp in ``<metadata>``; above 96 cells a side one picture. ``look``: the
    keywords of ``to_png``."""
    return heatmap.draw(matrix, _print(Svg, matrix, _parts_shown(matrix), **look))


def to_pdf(matrix: Matrix, **look: Any) -> bytes:
    """The same as a page of PDF, its fonts within it, the stamp among its keywords."""
    return heatmap.draw(matrix, _print(Pdf, matrix, _parts_shown(matrix), **look))


def picture_png(matrix: Matrix, query: int = 0, **look: Any) -> bytes:
    """What one query gives to each patch of a picture, painted over the picture, as a figure for print.

    ``query`` is a position of the axis that is both queries and keys: special tokens such as CLS first (0), then the
    patches, row by row. Left stands the picture with the chosen patch outlined, right the same in grey under the
    weights; what special tokens get stands above. The colours span this query's weights on patches. ``matrix`` holds
    at least the row of ``query``, with all keys. The rest is as in ``to_png``, but a width scales the letters too.
    Raises ValueError for a matrix that lies on no picture or is pooled, cropped or a difference, for a grid that does
    not fit, and for a query that is not there.
    """
    return picture.draw(matrix, query, _print(Png, matrix, **look))


def picture_svg(matrix: Matrix, query: int = 0, **look: Any) -> bytes:
    """The same figure as SVG: two embedded pictures, vectors and text."""
    return picture.draw(matrix, query, _print(Svg, matrix, **look))


def picture_pdf(matrix: Matrix, query: int = 0, **look: Any) -> bytes:
    """The same figure as PDF."""
    return picture.draw(matrix, query, _print(Pdf, matrix, **look))


def cells_figure(
    cells: Cells, kind: str, *, title: str = "", theme: str = "light", stamp: Mapping[str, Any] | None = None
) -> bytes:
    """A table of cells as a figure for print, with what stands in them; ``kind`` "png" or "svg". The rest as above."""
    return table.draw(cells, title, _paper(kind, theme, stamp))


def bars_figure(
    rows: Sequence[bars.Row],
    sums: Sequence[tuple[str, str]],
    kind: str,
    *,
    title: str = "",
    theme: str = "light",
    stamp: Mapping[str, Any] | None = None,
) -> bytes:
    """Parts that add up, as a figure for print: ``rows`` of name, value and how that is written, ``sums`` of name and
    value in words; ``kind`` "png" or "svg"."""
    return bars.draw(rows, sums, title, _paper(kind, theme, stamp))


def maps_figure(
    found: Sequence[Attribution],
    kind: str,
    *,
    title: str = "",
    theme: str = "light",
    stamp: Mapping[str, Any] | None = None,
) -> bytes:
    """What an answer rests on by one method or several, of one input, as a figure for print: running text, patches or
    strips in colours; ``kind`` "png" or "svg"."""
    sides, blocks = [attributions.shown(one) for one in found], attributions.blocks(found[0].features)
    return maps.draw(sides, blocks, title, _paper(kind, theme, stamp))


def circuit_figure(
    drawn: Drawn, kind: str, *, title: str = "", theme: str = "light", stamp: Mapping[str, Any] | None = None
) -> bytes:
    """The graph of one answer for print; ``kind`` "png" or "svg"."""
    return circuit.draw(drawn, title, _paper(kind, theme, stamp))


def to_csv(matrix: Matrix) -> bytes:
    """A matrix for a spreadsheet: queries down, keys across, both named ``index:'token'``, or by the time at which they
    begin, such as ``1.24 s``, where they are frames of a recording.

    Values round-trip to the same float32; no value is an empty field. UTF-8 with a byte order mark, without
    which Excel reads tokens in the wrong alphabet (in Python: ``pandas.read_csv(file, index_col=0)``). The
    quotes keep a spreadsheet from reading ``12:30`` as a time, and nothing can start a formula.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["query / key", *_names(matrix.columns)])
    for name, row in zip(_names(matrix.rows), matrix.values.cpu().float().numpy(), strict=True):
        writer.writerow([name, *("" if np.isnan(value) else str(value) for value in row)])
    return out.getvalue().encode("utf-8-sig")


def to_npz(cap: Capture, call: AttentionCall | None = None, head: int | None = None) -> bytes:
    """Exact weights of all heads of one call, or of one, or of every call, for ``numpy.load``.

    One call: ``weights`` (B, H, Q, K) float32, H = 1 with a ``head``, ``queries`` (Q,) and ``keys`` (K,) token texts,
    ``query_offsets`` (Q, 2) and ``key_offsets`` (K, 2) characters where the axis has them, and ``metadata``,
    a JSON string: what ``stamp`` says, ``calls``, and in ``axes`` the ``grid`` and ``box`` of a picture or the ``step``
    and ``seconds`` of a recording. Every call: the same names behind ``stack.layer.``, such as
    ``decoder.0.weights``. Raises ValueError above 256 MB of weights and for a head without its call, IndexError for a
    head that is not there.
    """
    calls = cap.calls if call is None else (call,)
    heads = slice(None) if head is None else _one_head(call, head)
    need = sum(4 * c.batch * len(range(c.heads)[heads]) * c.queries * c.keys for c in calls)
    if need > NPZ_BYTES:
        what = f"All {len(calls)} calls of this run" if call is None else f"Layer {call.layer}"
        advice = "Export one layer" if call is None and len(calls) > 1 else "Export one head, or use a shorter input"
        limit = f"an NPZ holds up to {NPZ_BYTES // 2**20} MB"
        raise ValueError(f"{what} would take {need / 2**20:,.0f} MB of weights; {limit}. {advice}.")
    arrays, described = {}, []
    for number, c in enumerate(calls):
        prefix = "" if call is not None else f"{c.stack}.{c.layer}."
        if prefix + "weights" in arrays:  # the same layer twice in one run
            prefix += f"call{number}."
        weights = np.empty((c.batch, len(range(c.heads)[heads]), c.queries, c.keys), np.float32)
        for start, stop, band in c.bands(heads):
            weights[:, :, start:stop] = band.cpu().numpy()
        arrays[prefix + "weights"] = weights
        for side, plural in (("query", "queries"), ("key", "keys")):
            axis = getattr(c, f"{side}_axis")
            arrays[prefix + plural] = np.array(axis.labels, dtype=np.str_)
            if axis.offsets is not None:
                arrays[f"{prefix}{side}_offsets"] = np.array(axis.offsets, np.int64)
        described.append(
            {
                "array": prefix + "weights",
                "module": c.name,
                "stack": c.stack,
                "layer": c.layer,
                "heads": list(range(c.heads)[heads]),
                "kind": c.kind,
                "seen": c.seen,
                "axes": [axis_name(cap, c, "query"), axis_name(cap, c, "key")],
            }
        )
    arrays["metadata"] = np.array(json.dumps({**stamp(cap), "calls": described}))
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _one_head(call: AttentionCall | None, head: int) -> slice:
    if call is None:
        raise ValueError("A head is one of a layer: say which.")
    if not 0 <= head < call.heads:
        raise IndexError(f"Layer {call.layer} has heads 0 … {call.heads - 1}, got {head}.")
    return slice(head, head + 1)


def to_html(cap: Capture, stack: str | None = None, layer: int = 0, *, batch: int = 0, head: int | None = None) -> str:
    """BertViz's head view and model view (Vig 2019) of one layer as one page that needs no network.

    All heads, or one, of sample ``batch``; of cross-attention the queries are on the left. Weights are rounded to five
    decimals. Tokens reach the page only as escaped JSON that BertViz writes as text, and the page's own
    policy forbids other scripts and all requests. Raises ValueError above 64 tokens, IndexError for a layer, a head
    or a sample that is not there, ImportError without the bertviz package.
    """
    call = cap.find(layer, stack)
    if (tokens := max(call.queries, call.keys)) > BERTVIZ_TOKENS:
        raise ValueError(f"BertViz draws up to {BERTVIZ_TOKENS} tokens; this input has {tokens:,}. Shorten it.")
    if not 0 <= batch < call.batch:
        raise IndexError(f"batch expects a sample 0 … {call.batch - 1}; got {batch}.")
    chosen = slice(None) if head is None else _one_head(call, head)
    weights = torch.cat([band[batch] for _, _, band in call.bands(chosen)], 1)  # (H, Q, K)
    weights = weights.cpu().double().numpy().round(5)
    heads = list(range(call.heads)[chosen])
    shared = {
        "attention": [
            {
                "name": None,
                "attn": [np.nan_to_num(weights, nan=0.0).tolist()],
                "left_text": bertviz.short_labels(call.query_axis.labels),
                "right_text": bertviz.short_labels(call.key_axis.labels),
            }
        ],
        "default_filter": "0", "display_mode": "light", "layer": layer, "heads": None,
        "include_layers": [layer], "include_heads": heads, "total_heads": call.heads,
    }  # fmt: skip
    about = stamp(cap)
    small = [*one_of_many(cap, call, batch), *stamp_parts(about)]
    if missing := int(np.isnan(weights).sum()):
        small.append(f"weights are NaN in {missing:,} places")
    what = "cross-attention" if call.kind == "cross" else call.stack
    title = f"{cap.subject.name} · {what} · layer {layer}" + ("" if head is None else f" · head {head}")
    return bertviz.page(title, shared, " · ".join(small), about, _version("bertviz") or "")


def _one_line(label: str) -> str:
    """A token on one line: line breaks and control characters as code writes them, spaces as they are."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in label)


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _names(span: Span) -> list[str]:
    """What a spreadsheet calls rows or columns; months and notes with spaces as one types them."""
    if span.track is not None:
        span = replace(span, labels=tuple(label.replace("\u00a0", " ") for label in span.labels))
    if span.sound is not None:
        return times(span)
    ends = (min(start + span.factor, span.whole) - 1 for start in span.starts)
    places = [f"{start}–{end}" if span.factor > 1 else start for start, end in zip(span.starts, ends, strict=True)]
    return [f"{place}:'{_one_line(label)}'" for place, label in zip(places, span.labels, strict=True)]


def _print(
    pen: type,
    matrix: Matrix,
    parts: Sequence[str] = (),
    *,
    scale: str = "linear",
    theme: str = "light",
    stamp: Mapping[str, Any] | None = None,
    paper: Paper = PLAIN,
) -> Print:
    """``parts`` of the whole that is shown, for the small print; the keywords are those of ``to_png``."""
    about = dict(stamp) if stamp is not None else {"headwise": VERSION}
    return Print(pen, scale, theme, about, (*parts, *matrix.left_out, *stamp_parts(about)), paper)


def _paper(kind: str, theme: str, stamp: Mapping[str, Any] | None) -> Print:
    if kind not in PENS:
        raise ValueError(f"kind expects one of {', '.join(PENS)}; got {kind!r}.")
    about = dict(stamp) if stamp is not None else {"headwise": VERSION}
    return Print(PENS[kind], theme=theme, stamp=about, footer=stamp_parts(about))


def _parts_shown(matrix: Matrix) -> list[str]:
    """What of the whole a heat map shows, for its small print."""
    parts = []
    if max(matrix.factor) > 1:
        parts.append(f"each cell is the largest of {matrix.factor[0]} × {matrix.factor[1]} positions")
    for span in matrix.spans:
        if span.end - span.origin == span.whole:
            continue
        if span.sound is None:
            parts.append(f"{span.name} {span.origin}–{span.end - 1} of {span.whole}")
        else:
            first, end, whole = (position * span.sound.step for position in (span.origin, span.end, span.whole))
            parts.append(f"{span.name} {first:.2f}–{end:.2f} s of {whole:.2f} s")
    return parts


def stamp_parts(about: Mapping[str, Any]) -> list[str]:
    """A stamp in words."""
    parts = []
    if "model" in about:
        if "minuend" in about:
            parts.append(f"difference: {about['minuend']['model']} minus {about['model']}")
        parts.append(about["origin"] if "@" in about["origin"] else about["model"])  # a hub id with its revision
        parts.append(f"{_amount(about['parameters'])} parameters")
        parts += [about["dtype"], f"attention: {about['attention']}"]
        for name, count in about["tokens"].items():
            own, lies = "" if name == "input" else f"{name} ", about.get("axes", {}).get(name, {})
            if "seconds" in lies:
                parts.append(f"{own}{lies['seconds']:.2f} s in {count:,} frames")
            elif "grid" in lies:
                parts.append(f"{own}{lies['grid'][0]} × {lies['grid'][1]} patches")
            else:
                parts.append(f"{count:,} {own}tokens")
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
