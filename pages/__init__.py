"""The app: one page, one function. ``navigate`` is the whole of app.py."""

from __future__ import annotations

from importlib import import_module

import streamlit as st

from headwise.assets import ASSETS

PAGES = {"heads": ":material/grid_view:", "masks": ":material/filter_b_and_w:", "embeddings": ":material/scatter_plot:"}


def navigate() -> None:
    """Show the page that the address names.

    Each page's file ends by calling this where Streamlit runs the file itself: until somebody has opened the app's own
    script, every file in a folder ``pages`` beside it is an address, and Streamlit makes a menu of them. config.toml
    hides that menu; from here on there is ours.
    """
    st.set_page_config(page_title="Headwise", page_icon=ASSETS / "icon.svg", layout="wide")
    if not st.get_option("client.showSidebarNavigation"):
        st.set_option("client.showSidebarNavigation", True)
    heads, *others = (_page(name, icon, default=name == "heads") for name, icon in PAGES.items())

    def named() -> None:
        st.switch_page(heads, query_params=st.query_params.to_dict())

    alias = st.Page(named, title="Heads", url_path="heads", visibility="hidden")  # the first page by its name
    st.navigation([heads, *others, alias]).run()


def _page(name: str, icon: str, default: bool):
    """A page whose code is loaded when it is drawn, so that the first visitor of a server sees the menu meanwhile."""

    def draw() -> None:
        getattr(import_module(f"headwise.pages.{name}"), name)()

    where = {"default": True} if default else {"url_path": name}
    return st.Page(draw, title=name.capitalize(), icon=icon, **where)
