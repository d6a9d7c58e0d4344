"""The app: one page, one function. ``navigate`` is the whole of app.py."""

from __future__ import annotations

import streamlit as st

from headwise.assets import ASSETS
from headwise.pages._shared.ways import GROUPS, page


def navigate() -> None:
    """Show the page that the address names.

    Each page's file ends by calling this where Streamlit runs the file itself: until somebody has opened the app's own
    script, every file in a folder ``pages`` beside it is an address, and Streamlit makes a menu of them. config.toml
    hides that menu; from here on there is ours.
    """
    st.set_page_config(page_title="Headwise", page_icon=ASSETS / "icon.svg", layout="wide")
    if not st.get_option("client.showSidebarNavigation"):
        st.set_option("client.showSidebarNavigation", True)
    groups = {group: [page(name) for name in names] for group, names in GROUPS.items()}
    heads = groups["Look"][0]

    def named() -> None:
        st.switch_page(heads, query_params=st.query_params.to_dict())

    alias = st.Page(named, title="Heads", url_path="heads", visibility="hidden")  # the first page by its name
    groups["Look"].append(alias)
    chosen = st.navigation(groups, position="top")
    st.html(_standing([chosen.title in [page.title for page in pages] for pages in groups.values()], chosen.title))
    chosen.run()


def _standing(here: list[bool], name: str) -> str:
    """The style that lets the menu on top say where one is: it shows groups, and their pages only when opened."""
    place = f"[data-testid=stTopNav] > div:nth-child({here.index(True) + 1})"
    return f"<style>{place} button {{ font-weight: 600 }} {place} p::after {{ content: ' › {name}' }}</style>"
