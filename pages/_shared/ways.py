"""The pages of the app. Loads none of them: the first visitor of a server sees the menu meanwhile."""

from __future__ import annotations

from importlib import import_module

import streamlit as st

GROUPS = {  # what one comes for → its pages, each with its icon
    "Look": {
        "heads": ":material/grid_view:",
        "variants": ":material/texture:",
        "embeddings": ":material/scatter_plot:",
    },
    "Explain": {
        "stream": ":material/waterfall_chart:",
        "attribution": ":material/format_ink_highlighter:",
        "patching": ":material/swap_horiz:",
        "circuits": ":material/account_tree:",
        "compare": ":material/compare_arrows:",
    },
    "Check": {
        "masks": ":material/filter_b_and_w:",
    },
}
ICONS = {name: icon for pages in GROUPS.values() for name, icon in pages.items()}


def page(name: str):
    """A page whose code is loaded when it is drawn."""

    def draw() -> None:
        getattr(import_module(f"headwise.pages.{name}"), name)()

    where = {"default": True} if name == "heads" else {"url_path": name}
    return st.Page(draw, title=name.capitalize(), icon=ICONS[name], **where)
