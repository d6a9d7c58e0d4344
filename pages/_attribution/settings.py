"""What stands in the place of what is taken away, and whether weights are randomised too."""

from __future__ import annotations

import streamlit as st

from headwise.interp.analysis.attribution.features import Features
from headwise.pages._attribution.choices import AttributionChoices, state

NAMES = {"zero": "Nothing", "mean": "Mean", "mask": "Mask token", "blur": "Blur", "least": "Silence"}
HELP = (
    "What stands in the place of what is taken away, in the tests and in those methods that need it. No choice is "
    "neutral: look at more than one."
)
SANITY = (
    "Makes the weights of a copy random, from the answer down to the input, and looks how much of each map is left "
    "(Adebayo et al. 2018). A map that stays is not about what the model has learned."
)
ALL = "Tests every method that applies to this model on this input, and ranks them. It takes a while on larger models."


def settings(features: Features) -> str:
    """Draw both → what stands in."""
    kinds = features.baselines
    if state.baseline not in kinds:
        state.baseline = kinds[0]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="attribution-settings"):
        st.toggle("Sanity check", help=SANITY, **AttributionChoices.checked.widget)
        st.toggle("All methods", help=ALL, **AttributionChoices.tested.widget)
        if len(kinds) > 1:
            st.html(f"<span class='method' title='{HELP}'>What is taken away is replaced by</span>", width="content")
            st.segmented_control(
                "Replaced by",
                kinds,
                format_func=lambda kind: NAMES.get(kind, kind.capitalize()),
                required=True,
                label_visibility="collapsed",
                **AttributionChoices.baseline.widget,
            )
    return state.baseline
