"""Headwise: see every head of any transformer, and trust every mask. Start with: streamlit run app.py"""

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from headwise.pages import navigate
from headwise.pages._shared.start import ROUTES, warmed

if get_script_run_ctx(suppress_warning=True) is None:  # the server, which reads this once
    app = st.App(__file__, lifespan=warmed, routes=ROUTES)
else:  # a session, which reads it at every run
    navigate()
