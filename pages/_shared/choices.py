"""What a person has chosen, kept in the session and in the address bar: a copied link opens the same view."""

from __future__ import annotations

import streamlit as st

from headwise.models import devices

LINKED_CHARACTERS = 4_000  # a longer text would not survive as an address

LINKED_TOKENS = 512
LINKED_TEXTS = ("text", "second", "target")

# name → what it is until somebody chooses; each is the key of a widget or is set by a picture
DEFAULTS = {
    "model": "tiny-decoder",
    "text": "",
    "second": "",
    "target": "",
    "mode": "written",
    "file": "",
    "written": (),
    "device": "cpu",
    "dtype": "float32",
    "cut": False,
    "stack": "",
    "layer": -1,  # until somebody chooses: the head that is most worth a first look
    "head": -1,
    "view": "",  # what suits the input best
    "quantity": "weights",
    "scale": "linear",
    "words": False,
    "special": True,
    "order": "layer",
    "metrics": "table",
    "section": "look",
    "padding": False,
    "compare": "",
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "seed": 0,
    "zoom": None,
    "pin": None,
}

RANGES = {"temperature": (0.0, 2.0), "top_k": (0, 100), "top_p": (0.05, 1.0), "seed": (0, 2**31 - 1)}
CHOICES = {
    "view": ("heatmap", "bipartite", "picture"),
    "mode": ("written", "typed", "stepwise"),
    "quantity": ("weights", "scores", "value_weighted"),
    "scale": ("linear", "log"),
    "metrics": ("table", "scatter"),
    "section": ("look", "compose", "lint", "zoo"),
    "dtype": ("float32", "bfloat16", "float16"),
    "device": devices(),
}


def restore(**defaults) -> None:
    """Fill the session from the address once, then keep widget values alive across pages."""
    for name, default in {**DEFAULTS, **defaults}.items():
        if name not in st.session_state:
            value = _read(st.query_params.get(name), default, DEFAULTS[name])
            if name in RANGES:
                value = default if value != value else min(max(value, RANGES[name][0]), RANGES[name][1])  # NaN is none
            st.session_state[name] = value if value in CHOICES.get(name, (value,)) else default
        else:
            st.session_state[name] = st.session_state[name]


def publish(**defaults) -> bool:
    """Write what differs from the defaults into the address. False when the text is too long to be carried."""
    wanted = {}
    for name, default in {**DEFAULTS, **defaults}.items():
        value = st.session_state.get(name, default)
        if value != default and not (name in LINKED_TEXTS and len(value) > LINKED_CHARACTERS):
            wanted[name] = _write(value)
    if dict(st.query_params) != wanted:
        st.query_params.from_dict(wanted)
    return all(len(st.session_state[name]) <= LINKED_CHARACTERS for name in LINKED_TEXTS)


def _write(value) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple | list):
        return "-".join(map(str, value))
    if isinstance(value, dict):
        return f"{value['axis']}-{value['index']}"
    return str(value)


def _read(text: str | None, default, example):
    """An address is written by anybody: what does not parse is the default."""
    if text is None:
        return default
    try:
        if isinstance(example, bool):
            return bool(int(text))
        if isinstance(example, int):
            return max(0, int(text))
        if isinstance(example, float):
            return float(text)
        if isinstance(example, str):
            return text
        if isinstance(example, tuple):
            return tuple(map(int, text.split("-")))[:LINKED_TOKENS]
        parts = text.split("-")
        if parts[0] in ("query", "key") and len(parts) == 2:
            return {"axis": parts[0], "index": int(parts[1])}
        numbers = tuple(map(int, parts))
        return numbers if len(numbers) == 4 else default
    except ValueError:
        return default
