"""Headwise: see every head of any transformer, and trust every mask. Start with: streamlit run app.py"""

import streamlit as st

from pages.embeddings import embeddings
from pages.heads import heads
from pages.masks import masks

st.set_page_config(page_title="Headwise", page_icon="assets/icon.svg", layout="wide")
st.navigation(
    [
        st.Page(heads, title="Heads", icon=":material/grid_view:", default=True),
        st.Page(masks, title="Masks", icon=":material/filter_b_and_w:", url_path="masks"),
        st.Page(embeddings, title="Embeddings", icon=":material/scatter_plot:", url_path="embeddings"),
    ]
).run()
