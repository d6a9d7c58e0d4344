"""The app: one page, one function. ``navigate`` is the whole of app.py."""

import streamlit as st

from headwise.assets import ASSETS


def navigate() -> None:
    """Show the page that the address names.

    Each page's file ends by calling this where Streamlit runs the file itself: until somebody has opened the app's own
    script, every file in a folder ``pages`` beside it is an address.
    """
    from headwise.pages.embeddings import embeddings  # here, because those files call this one
    from headwise.pages.heads import heads
    from headwise.pages.masks import masks

    st.set_page_config(page_title="Headwise", page_icon=ASSETS / "icon.svg", layout="wide")
    st.navigation(
        [
            st.Page(heads, title="Heads", icon=":material/grid_view:", default=True),
            st.Page(masks, title="Masks", icon=":material/filter_b_and_w:", url_path="masks"),
            st.Page(embeddings, title="Embeddings", icon=":material/scatter_plot:", url_path="embeddings"),
        ]
    ).run()
