"""A page for test_canvas.py: hand-made matrices, chosen by ?case=…, and the last events as plain text."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import streamlit as st
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # as `streamlit run app.py` at the top of a clone would see it

from headwise.interp.attention.axes import PixelGrid, Sound
from headwise.interp.drawing.matrix import Matrix, Span
from headwise.interp.drawing.quantities import QUANTITIES, Quantity
from headwise.pages._shared import canvas as _canvas

WEIGHT, SIDES = QUANTITIES["weights"], ("queries", "keys")
TOKENS = [
    "When",
    " Mary",
    " and",
    " John",
    " went",
    " to",
    " the",
    " store",
    ",",
    " John",
    "\n",
    " gave",
    " a",
    " drink",
]


def causal(n, shift=0):
    """(n, n) uint8: 1 where the key lies after the query."""
    return np.triu(np.ones((n, n), np.uint8), 1 + shift)


def attention(n, seed=0, sharp=2.0):
    """(n, n) float32 rows that sum to 1 under a causal mask: a sink, a previous-token stripe and noise."""
    score = np.random.default_rng(seed).normal(size=(n, n)) * sharp
    score[:, 0] += 2.5
    score += 4.0 * np.eye(n, k=-1)
    score[causal(n) == 1] = -np.inf
    weight = np.exp(score - score.max(1, keepdims=True))
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def tiny():
    """5 × 5 by hand: row q sees keys 0 … q, and the values say where they stand: 0.1·q + 0.01·k."""
    q, k = np.mgrid[:5, :5]
    return np.where(k <= q, 0.1 * q + 0.01 * k, 0).astype(np.float32)


def matrix(values, queries=TOKENS, keys=TOKENS, *, forbidden=None, quantity=WEIGHT, title="", place=()):
    """A matrix by hand. place: origin, factor and whole of the queries and of the keys."""
    places = place or ((), ())
    spans = (Span(tuple(labels), name, *at) for labels, name, at in zip((queries, keys), SIDES, places, strict=True))
    codes = None if forbidden is None else torch.from_numpy(np.array(forbidden))
    return Matrix(torch.from_numpy(np.array(values)), *spans, quantity, codes, title)


def draw(case, bump):
    n = len(TOKENS)
    five = {"queries": "abcde", "keys": ["v", " w", "x\n", "y", "z"]}
    words = [f" word{i}" for i in range(512)]
    many = {"queries": words, "keys": words}
    if case in ("grid", "sorted", "big-grid", "compact-grid"):
        return draw_grid(case)
    if case == "tiny":
        return show(matrix(tiny() + np.float32(bump / 1000), **five, forbidden=causal(5), title="1.2"))
    if case == "open":  # no mask given: weights above the diagonal are weights
        return show(matrix(np.full((5, 5), 0.2, np.float32), **five, title="open"))
    if case == "leak":
        values = tiny()
        values[1, 3] = 0.02  # one weight on a forbidden position, and one too small to be a leak
        values[2, 4] = 5e-7
        return show(matrix(values, **five, forbidden=causal(5), title="leak"))
    if case == "leak-512":
        values = attention(512, 3)
        values[200, 400] = 0.01
        return show(matrix(values, **many, forbidden=causal(512), title="leak"), scale="log")
    if case == "words":
        return show(matrix(attention(n), forbidden=causal(n), title="layer 3 · head 5"))
    if case == "pinned":
        pin = st.session_state.get("pin", {"axis": "query", "index": 7})
        return show(matrix(attention(n), forbidden=causal(n), title="layer 3 · head 5"), selected=pin)
    if case.startswith("picking"):
        picking = _canvas.Picking("forbid this edge", [(3, 1)], "Click a cell to forbid it", "take this back")
        if case == "picking-pooled":
            sides = {"queries": [""] * 5, "keys": [""] * 5, "place": ((0, 2, 10), (0, 2, 10))}
            return show(matrix(tiny(), **sides), picking=picking)
        return show(matrix(tiny(), **five, forbidden=causal(5), title="1.2"), picking=picking)
    if case == "numbers":
        effects = np.array([[-2.0, 0.5, 0.0], [1.0, 2.0, -0.25]], np.float32)
        sides = Span(("3", "7"), "layers"), Span(tuple("012"), "heads")
        shown = Matrix(torch.from_numpy(effects), *sides, Quantity("Δ logit", "signed"))
        return _canvas.numbers(shown, key="head", height=200, picking=_canvas.Picking("look at this head"))
    if case == "edges":
        values = attention(n)
        values[3, 8] = 0.05
        return show(matrix(values, forbidden=causal(n), title="3.5"), view="bipartite")
    if case == "edges-512":
        return show(matrix(attention(512, bump), **many, forbidden=causal(512), title="3.5"), view="bipartite")
    if case == "pooled":  # keys 20 … 59 and queries 100 … 139 of 1000 × 200, four queries and two keys to a cell
        mask = causal(20)[:10]
        mask[np.arange(10), np.arange(10)] = 2
        sides = {"queries": [""] * 10, "keys": [""] * 20, "place": ((100, 4, 1000), (20, 2, 200))}
        most = Quantity("max weight")
        return show(matrix(attention(20)[:10], **sides, forbidden=mask, quantity=most, title="pooled"))
    if case == "big":
        return show(matrix(attention(512, bump), **many, forbidden=causal(512), title="big"))
    if case == "middle":
        values = attention(96)
        mask = causal(96) | causal(96, shift=-33).T * 0 | np.tril(np.ones((96, 96), np.uint8), -32)
        values[mask == 1] = 0
        return show(matrix(values, words[:96], words[:96], forbidden=mask, title="window"), scale="log")
    if case.startswith("signed"):
        values = attention(n) - attention(n, 7)
        view = "bipartite" if case == "signed-edges" else "heatmap"
        return show(matrix(values, quantity=Quantity("difference", "signed"), title="3.5 − 3.6"), view=view)
    if case == "cross":
        values = attention(30)[8:14]
        values[2, 5] = np.nan
        return show(matrix(values, TOKENS[:6], words[:30], quantity=Quantity("score", "score"), title="cross"))
    if case == "map":
        found = matrix(attention(n)[:, :6], keys="012345", quantity=Quantity("adds", "signed"))
        named = replace(
            found, rows=replace(found.rows, name="source keys"), columns=replace(found.columns, name="dimensions")
        )
        return _canvas.rows(named, key="head", selected=0, height=300)
    if case == "html":
        evil = "<img src=x onerror=window.hacked=1>"
        keys = [evil, "\u202eabc", "$a$", "e\u0301", "  \t"]
        return show(matrix(tiny(), [evil] * 5, keys, quantity=Quantity(evil), title=evil))
    if case.startswith("picture"):
        return draw_picture(case)
    return draw_sound(case)


def draw_grid(case):
    layers, heads, t = (32, 32, 48) if case == "big-grid" else (20, 6, 16) if case == "compact-grid" else (4, 6, 16)
    thumbs = np.stack([attention(t, seed) for seed in range(layers * heads)]).reshape(layers, heads, t, t)
    thumbs[:, :, causal(t) == 1] = np.nan
    order = sorted(np.ndindex(layers, heads), key=lambda h: (h[1] * 7 + h[0] * 3) % 11)
    shown = _canvas.Heads(
        thumbs,
        rows=[f"layer {i}" for i in range(layers)],
        columns=[str(i) for i in range(heads)],
        marks={0: "GQA 3 kv", 2: ("window 128", "each query sees 128 keys, itself included")},
        captions={(2, 3): "entropy 2.1 bits"},
    )
    chosen = st.session_state.get("chosen", (1, 2))
    how = {"order": order if case == "sorted" else None, "compact": case == "compact-grid"}
    return _canvas.send("grid", _canvas.packed_grid(shown, key="grid", selected=chosen, **how))


def show(shown, **how):
    return _canvas.head(shown, key="head", **how)


BOXES = {  # name: width and height of a picture, the box of its 4 × 8 patches
    "picture-whole": (400, 200, (0, 0, 400, 200)),
    "picture-crop": (200, 300, (20, 70, 180, 230)),
    "picture-pad": (200, 300, (-60, -20, 260, 320)),
}


def draw_picture(case):
    """A white picture, black in patch (2, 5). Query 0 looks there only, every other at itself and a little at [CLS]."""
    width, height, box = BOXES.get(case, BOXES["picture-whole"])
    pixels = np.full((height, width, 3), 255, np.uint8)
    w, h = (box[2] - box[0]) / 8, (box[3] - box[1]) / 4
    pixels[int(box[1] + 2 * h) : int(box[1] + 3 * h), int(box[0] + 5 * w) : int(box[0] + 6 * w)] = 0
    values = 0.75 * np.eye(33, dtype=np.float32)
    values[:, 0] = 0.25
    values[0] = 0
    values[0, 1 + 2 * 8 + 5] = 1
    values[9, [0, 9]] = 0.875, 0.125
    labels = ["[CLS]"] + [f"{row},{column}" for row in range(4) for column in range(8)]
    forbidden, title = np.zeros((33, 33), np.uint8), ""
    if case == "picture-html":
        labels[0] = title = "<img src=x onerror=window.hacked=1>"
    if case == "picture-leak":
        forbidden[0, [22, 30]] = 1
    lies = {"picture": PixelGrid(pixels, box), "grid": (4, 8)}
    spans = (Span(tuple(labels), name, **lies) for name in SIDES)
    shown = Matrix(torch.from_numpy(values), *spans, WEIGHT, torch.from_numpy(forbidden), title)
    return show(shown, view="picture")


def draw_sound(case):
    """A click at 13.375 s of 14.2 s, padded to 30 s; every query looks at it, position 668 of 1500."""
    spectrogram = np.zeros((80, 3000), np.float32)
    spectrogram[:, 1337] = 1
    sound = Sound(spectrogram, hop=0.01, step=0.02, seconds=14.2)
    name, _, rest = case.partition("-")
    view = rest if rest == "bipartite" else "heatmap"
    first, factor, count = {"pooled": (0, 4, 375), "odd": (611, 3, 300)}.get(rest, (600, 1, 120))
    keys = Span(("",) * count, "keys", first, factor, 1500, sound)
    queries = replace(keys, name="queries") if name == "frames" else Span(tuple(TOKENS[:12]), "queries")
    values = np.full((len(queries), count), 0.001, np.float32)
    values[:, (668 - first) // factor] = 0.5
    return show(Matrix(torch.from_numpy(values), queries, keys), view=view)


def main():
    st.set_page_config(layout="wide")
    _canvas.modules()
    case = st.query_params.get("case", "tiny")
    if "layer" in _canvas.event("grid"):
        st.session_state.chosen = tuple(_canvas.event("grid").values())
    if "token" in _canvas.event("head"):
        st.session_state.pin = _canvas.event("head")["token"]
    bump = st.session_state.get("bump", 0)
    result = None if st.checkbox("hide") else draw(case, bump)
    log = st.session_state.setdefault("log", [])
    if result is not None:
        log.append(result)
    st.text("events " + json.dumps(log))
    st.button("rerun", on_click=lambda: st.session_state.update(bump=bump + 1))
    st.text(f"bump {bump}")


if __name__ == "__main__":  # not when pytest looks for doctests here
    main()
