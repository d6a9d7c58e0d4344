"""What leaves the house: figures (PNG, SVG), numbers (CSV, NPZ) and BertViz's pages (HTML).

>>> from headwise import capture, load
>>> from headwise.interp.drawing import files
>>> from headwise.interp.drawing.matrix import head_view
>>> cap = capture(load("tiny-decoder"), "The people of the United States")
>>> picture = files.to_png(head_view(cap, cap.calls[0], head=0), "layer 0 · head 0", stamp=files.stamp(cap))
>>> picture[1:4]
b'PNG'
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwise.interp.attention.axes import Axis, PixelGrid, Sound
from headwise.interp.attention.call import AttentionCall
from headwise.interp.drawing import bertviz
from headwise.interp.drawing.matrix import HeadView
from headwise.interp.run.capture import Capture
from headwise.interp.subject import Subject

VERSION = "0.1.0"  # of Headwise
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
        "parameters": subject.parameters,
        "dtype": str(subject.dtype).removeprefix("torch."),
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
    view: HeadView, title: str = "", scale: str = "linear", theme: str = "light", *,
    quantity: str = "weights", stamp: Mapping[str, Any] | None = None, query_sound: Sound | None = None,
    key_sound: Sound | None = None, axis_names: tuple[str, str] = ("queries", "keys"),
) -> bytes:  # fmt: skip
    """One head as a figure for print, two pixels for each CSS pixel.

    Colours and scale are those of the app's canvas: ``scale`` "linear" or "log" (five decades), ``theme``
    "light" or "dark". Forbidden cells are hatched, and weight on them stands in the alarm colour.
    A difference of two heads is coloured from zero to both sides; "log" is linear below a thousandth of its end.
    ``quantity`` is what ``view`` was made with. ``stamp`` (of ``stamp(cap)``) goes into the small print and,
    as JSON, into the text chunk "headwise". ``query_sound``, ``key_sound``: the recording whose positions the queries
    or keys are, of a view that merges no words and hides no tokens; they are told in seconds, and the spectrogram of
    the keys stands above them. ``axis_names`` (of ``axis_names(cap, call)``) are what rows and columns are called.
    Raises ValueError for an unknown scale, theme or quantity.
    """
    return _heatmap("Png", view, title, scale, theme, quantity, stamp, query_sound, key_sound, axis_names)


def to_svg(
    view: HeadView, title: str = "", scale: str = "linear", theme: str = "light", *,
    quantity: str = "weights", stamp: Mapping[str, Any] | None = None, query_sound: Sound | None = None,
    key_sound: Sound | None = None, axis_names: tuple[str, str] = ("queries", "keys"),
) -> bytes:  # fmt: skip
    """The same figure as vectors and text, stamp in ``<metadata>``; above 96 cells a side one picture."""
    return _heatmap("Svg", view, title, scale, theme, quantity, stamp, query_sound, key_sound, axis_names)


def picture_png(
    view: HeadView, picture: PixelGrid, grid: tuple[int, int], query: int = 0, title: str = "", scale: str = "linear",
    theme: str = "light", *, quantity: str = "weights", stamp: Mapping[str, Any] | None = None,
) -> bytes:  # fmt: skip
    """What one query gives to each patch of a picture, painted over the picture, as a figure for print.

    ``picture`` and ``grid`` are those of the axis that is both queries and keys; ``query`` is a position in it: special
    tokens such as CLS first (0), then the patches, row by row. Left stands the picture with the chosen patch outlined,
    right the same in grey under the weights; what special tokens get stands above. The colours span this query's
    weights on patches. ``view`` holds at least the row of ``query``, with all keys. The rest is as in ``to_png``.
    Raises ValueError for a view that is pooled, cropped or a difference, a grid that does not fit, or a query that is
    not there.
    """
    return _picture("Png", view, picture, grid, query, title, scale, theme, quantity, stamp)


def picture_svg(
    view: HeadView, picture: PixelGrid, grid: tuple[int, int], query: int = 0, title: str = "", scale: str = "linear",
    theme: str = "light", *, quantity: str = "weights", stamp: Mapping[str, Any] | None = None,
) -> bytes:  # fmt: skip
    """The same figure as SVG: two embedded pictures, vectors and text."""
    return _picture("Svg", view, picture, grid, query, title, scale, theme, quantity, stamp)


def axis_names(cap: Capture, call: AttentionCall) -> tuple[str, str]:
    """What a call's queries and keys are positions of: ("queries", "keys"), or ("target queries", "source keys") where
    there are two sequences."""
    return tuple(
        f"{name} {plural}" if len(cap.axes) > 1 and (name := _axis_name(cap, call, side)) else plural
        for side, plural in (("query", "queries"), ("key", "keys"))
    )


def to_csv(view: HeadView, *, query_sound: Sound | None = None, key_sound: Sound | None = None) -> bytes:
    """One head as a matrix for a spreadsheet: queries down, keys across, both named ``index:'token'``, or by the time
    at which they begin, such as ``1.24 s``, where ``query_sound`` or ``key_sound`` is their recording.

    Values round-trip to the same float32; no value is an empty field. UTF-8 with a byte order mark, without
    which Excel reads tokens in the wrong alphabet (in Python: ``pandas.read_csv(file, index_col=0)``). The
    quotes keep a spreadsheet from reading ``12:30`` as a time, and nothing can start a formula.
    """
    from headwise.interp.drawing.paper.sound import times

    def names(labels: tuple[str, ...], axis: int, sound: Sound | None) -> list[str]:
        if sound is not None:
            return times(sound, view, axis)
        first, size, whole = view.origin[axis], view.factor[axis], view.shape[axis]
        starts = range(first, first + size * len(labels), size)
        places = [str(s) if size == 1 else f"{s}–{min(s + size, whole) - 1}" for s in starts]
        return [f"{place}:'{_one_line(label)}'" for place, label in zip(places, labels, strict=True)]

    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["query / key", *names(view.keys, 1, key_sound)])
    for name, row in zip(names(view.queries, 0, query_sound), view.matrix.cpu().float().numpy(), strict=True):
        writer.writerow([name, *("" if np.isnan(value) else str(value) for value in row)])
    return out.getvalue().encode("utf-8-sig")


def to_npz(cap: Capture, call: AttentionCall | None = None) -> bytes:
    """Exact weights of all heads of one call, or of every call, for ``numpy.load``.

    One call: ``weights`` (B, H, Q, K) float32, ``queries`` (Q,) and ``keys`` (K,) token texts,
    ``query_offsets`` (Q, 2) and ``key_offsets`` (K, 2) characters where the axis has them, and ``metadata``,
    a JSON string: what ``stamp`` says, ``calls``, and in ``axes`` the ``grid`` and ``box`` of a picture or the ``step``
    and ``seconds`` of a recording. Every call: the same names behind ``stack.layer.``, such as
    ``decoder.0.weights``. Raises ValueError above 256 MB of weights.
    """
    calls = cap.calls if call is None else (call,)
    need = sum(4 * c.batch * c.heads * c.queries * c.keys for c in calls)
    if need > NPZ_BYTES:
        what = f"All {len(calls)} calls of this run" if call is None else f"Layer {call.layer}"
        advice = "Export one layer" if call is None and len(calls) > 1 else "Use a shorter input"
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
                "kind": c.kind,
                "seen": c.seen,
                "axes": [_axis_name(cap, c, "query"), _axis_name(cap, c, "key")],
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
        raise ValueError(f"BertViz draws up to {BERTVIZ_TOKENS} tokens; this input has {tokens:,}. Shorten it.")
    weights = torch.cat([band[0] for _, _, band in call.bands()], 1)  # (H, Q, K)
    weights = weights.cpu().double().numpy().round(5)
    heads = list(range(call.heads))
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
    small = _stamp_parts(about) + [f"weights are NaN in {int(np.isnan(weights).sum()):,} places"] * bool(
        np.isnan(weights).any()
    )
    what = "cross-attention" if call.kind == "cross" else call.stack
    title = f"{cap.subject.name} · {what} · layer {layer}"
    return bertviz.page(title, shared, " · ".join(small), about, _version("bertviz") or "")


def _one_line(label: str) -> str:
    """A token on one line: line breaks and control characters as code writes them, spaces as they are."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in label)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _axis_name(cap: Capture, call: AttentionCall, side: str) -> str | None:
    """What the input calls the axis of a call's side: "input", "source" or "target"."""
    axis = getattr(call, f"{side}_axis")
    return next((name for name, own in cap.axes.items() if own is axis), None)


def _heatmap(pen, view, title, scale, theme, quantity, about, query_sound, key_sound, names: tuple[str, str]) -> bytes:
    from headwise.interp.drawing.paper import heatmap, pens

    about = dict(about) if about is not None else {"headwise": VERSION}
    parts = _shown_parts(view, (query_sound, key_sound))
    return heatmap.draw(
        getattr(pens, pen), view, title=title, scale=scale, theme=theme, quantity=quantity, stamp=about,
        footer=[*parts, *view.left_out, *_stamp_parts(about)], query_sound=query_sound, key_sound=key_sound,
        axis_names=names,
    )  # fmt: skip


def _picture(pen, view, picture, grid, query, title, scale, theme, quantity, about) -> bytes:
    from headwise.interp.drawing.paper import pens
    from headwise.interp.drawing.paper import picture as over

    about = dict(about) if about is not None else {"headwise": VERSION}
    return over.draw(
        getattr(pens, pen), view, picture, grid, query, title=title, scale=scale, theme=theme, quantity=quantity,
        stamp=about, footer=[*view.left_out, *_stamp_parts(about)],
    )  # fmt: skip


def _shown_parts(view: HeadView, sounds: tuple[Sound | None, Sound | None]) -> list[str]:
    """What of the whole a heat map shows, for its small print."""
    parts = []
    if max(view.factor) > 1:
        parts.append(f"each cell is the largest of {view.factor[0]} × {view.factor[1]} positions")
    for axis, (name, sound) in enumerate(zip(("queries", "keys"), sounds, strict=True)):
        first, count = view.origin[axis], view.matrix.shape[axis] * view.factor[axis]
        end, whole = min(first + count, view.shape[axis]), view.shape[axis]
        if end - first == whole:
            continue
        if sound is None:
            parts.append(f"{name} {first}–{end - 1} of {whole}")
        else:
            parts.append(f"{name} {first * sound.step:.2f}–{end * sound.step:.2f} s of {whole * sound.step:.2f} s")
    return parts


def _stamp_parts(about: Mapping[str, Any]) -> list[str]:
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
