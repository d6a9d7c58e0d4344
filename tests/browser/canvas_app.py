"""A page for test_canvas.py: hand-made matrices, chosen by ?case=…, and the last events as plain text."""

import json
import sys
from pathlib import Path

import numpy as np
import streamlit as st

sys.path.insert(0, str(Path(__file__).parents[2]))  # as `streamlit run app.py` at the top of a clone would see it

from headwise.interp.attention.axes import PixelGrid, Sound
from headwise.pages._shared import canvas as _canvas

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


def draw(case, bump):
    n = len(TOKENS)
    words = {"query_labels": TOKENS, "key_labels": TOKENS}
    five = {"query_labels": list("abcde"), "key_labels": ["v", " w", "x\n", "y", "z"], "forbidden": causal(5)}
    many = [f" word{i}" for i in range(512)]
    if case in ("grid", "sorted", "big-grid"):
        layers, heads, t = (4, 6, 16) if case != "big-grid" else (32, 32, 48)
        thumbs = np.stack([attention(t, seed) for seed in range(layers * heads)]).reshape(layers, heads, t, t)
        thumbs[:, :, causal(t) == 1] = np.nan
        order = sorted(np.ndindex(layers, heads), key=lambda h: (h[1] * 7 + h[0] * 3) % 11)
        return _canvas.grid(
            thumbs,
            selected=st.session_state.get("chosen", (1, 2)),
            key="grid",
            rows=[f"layer {i}" for i in range(layers)],
            columns=[str(i) for i in range(heads)],
            marks={0: "GQA 3 kv", 2: ("window 128", "each query sees 128 keys, itself included")},
            order=order if case == "sorted" else None,
            captions={(2, 3): "entropy 2.1 bits"},
        )
    if case == "tiny":
        return _canvas.head(tiny() + np.float32(bump / 1000), key="head", title="1.2", **five)
    if case == "open":  # no mask given: weights above the diagonal are weights
        return _canvas.head(np.full((5, 5), 0.2, np.float32), key="head", title="open", **five | {"forbidden": None})
    if case == "leak":
        matrix = tiny()
        matrix[1, 3] = 0.02  # one weight on a forbidden position, and one too small to be a leak
        matrix[2, 4] = 5e-7
        return _canvas.head(matrix, key="head", title="leak", **five)
    if case == "leak-512":
        matrix = attention(512, 3)
        matrix[200, 400] = 0.01
        labels = {"query_labels": many, "key_labels": many}
        return _canvas.head(matrix, key="head", title="leak", forbidden=causal(512), scale="log", **labels)
    if case == "words":
        return _canvas.head(attention(n), key="head", title="layer 3 · head 5", forbidden=causal(n), **words)
    if case == "pinned":
        pin = st.session_state.get("pin", {"axis": "query", "index": 7})
        return _canvas.head(
            attention(n), key="head", title="layer 3 · head 5", forbidden=causal(n), selected=pin, **words
        )
    if case == "edges":
        matrix = attention(n)
        matrix[3, 8] = 0.05
        return _canvas.head(matrix, key="head", title="3.5", forbidden=causal(n), view="bipartite", **words)
    if case == "edges-512":
        labels = {"query_labels": many, "key_labels": many}
        return _canvas.head(
            attention(512, bump), key="head", title="3.5", forbidden=causal(512), view="bipartite", **labels
        )
    if case == "pooled":  # keys 20 … 59 and queries 100 … 139 of 1000 × 200, four queries and two keys to a cell
        matrix = attention(20)[:10]
        mask = causal(20)[:10]
        mask[np.arange(10), np.arange(10)] = 2
        labels = {"query_labels": [""] * 10, "key_labels": [""] * 20}
        place = {"origin": (100, 20), "factor": (4, 2), "shape": (1000, 200)}
        return _canvas.head(
            matrix, key="head", title="pooled", forbidden=mask, value_name="max weight", **labels, **place
        )
    if case == "big":
        labels = {"query_labels": many, "key_labels": many}
        return _canvas.head(attention(512, bump), key="head", title="big", forbidden=causal(512), **labels)
    if case == "middle":
        matrix = attention(96)
        mask = causal(96) | causal(96, shift=-33).T * 0 | np.tril(np.ones((96, 96), np.uint8), -32)
        matrix[mask == 1] = 0
        labels = {"query_labels": many[:96], "key_labels": many[:96]}
        return _canvas.head(matrix, key="head", title="window", forbidden=mask, scale="log", **labels)
    if case == "signed":
        matrix = attention(n) - attention(n, 7)
        return _canvas.head(matrix, key="head", title="3.5 − 3.6", kind="signed", value_name="difference", **words)
    if case == "signed-edges":
        matrix = attention(n) - attention(n, 7)
        kind = {"kind": "signed", "value_name": "difference", "view": "bipartite"}
        return _canvas.head(matrix, key="head", title="3.5 − 3.6", **kind, **words)
    if case == "cross":
        matrix = attention(30)[8:14]
        matrix[2, 5] = np.nan
        labels = {"query_labels": TOKENS[:6], "key_labels": many[:30]}
        return _canvas.head(matrix, key="head", title="cross", kind="score", value_name="score", **labels)
    if case == "html":
        evil = "<img src=x onerror=window.hacked=1>"
        labels = {"query_labels": [evil] * 5, "key_labels": [evil, "\u202eabc", "$a$", "e\u0301", "  \t"]}
        return _canvas.head(tiny(), key="head", title=evil, value_name=evil, **labels)
    if case.startswith("picture"):
        return draw_picture(case)
    return draw_sound(case)


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
    matrix = 0.75 * np.eye(33, dtype=np.float32)
    matrix[:, 0] = 0.25
    matrix[0] = 0
    matrix[0, 1 + 2 * 8 + 5] = 1
    matrix[9, [0, 9]] = 0.875, 0.125
    labels = ["[CLS]"] + [f"{row},{column}" for row in range(4) for column in range(8)]
    options = {}
    if case == "picture-html":
        labels[0] = options["title"] = "<img src=x onerror=window.hacked=1>"
    if case == "picture-leak":
        options["forbidden"] = np.zeros((33, 33), np.uint8)
        options["forbidden"][0, [22, 30]] = 1
    return _canvas.head(
        matrix,
        key="head",
        view="picture",
        picture=PixelGrid(pixels, box),
        grid=(4, 8),
        query_labels=labels,
        key_labels=labels,
        **options,
    )


def draw_sound(case):
    """A click at 13.375 s of 14.2 s, padded to 30 s; every query looks at it, position 668 of 1500."""
    spectrogram = np.zeros((80, 3000), np.float32)
    spectrogram[:, 1337] = 1
    sound = Sound(spectrogram, hop=0.01, step=0.02, seconds=14.2)
    name, _, rest = case.partition("-")
    view = rest if rest == "bipartite" else "heatmap"
    first, factor, count = {"pooled": (0, 4, 375), "odd": (611, 3, 300)}.get(rest, (600, 1, 120))
    queries = count if name == "frames" else 12
    matrix = np.full((queries, count), 0.001, np.float32)
    matrix[:, (668 - first) // factor] = 0.5
    place = {"origin": (0, first), "factor": (1, factor), "shape": (12, 1500)}
    words = TOKENS[:12]
    if name == "frames":
        words = [""] * count
        place = {"origin": (first, first), "factor": (factor, factor), "shape": (1500, 1500)}
    return _canvas.head(
        matrix,
        key="head",
        view=view,
        query_labels=words,
        key_labels=[""] * count,
        query_sound=sound if name == "frames" else None,
        key_sound=sound,
        **place,
    )


def main():
    st.set_page_config(layout="wide")
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
