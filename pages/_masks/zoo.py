"""Real mask bugs as tiny living models, each beside its fix."""

from __future__ import annotations

import streamlit as st

from headwise import check
from headwise.interp.check import CLASSES, Report
from headwise.interp.zoo import CASES, Case, find
from headwise.pages._masks.choices import MasksChoices
from headwise.pages._masks.edges import draw_edges
from headwise.pages._shared.defence import fragment
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.shelf import server


@fragment
def zoo() -> None:
    st.caption(f"{len(CASES)} mask bugs as tiny living models, each beside its fix; the check runs when you look.")
    left, right = st.columns([4, 7], gap="large")
    with left:
        classes = [c for c in CLASSES if any(case.cls == c for case in CASES)]
        MasksChoices.zoo_class.one_of(classes)
        named = {"format_func": lambda c: f"{c}: {CLASSES[c]}"}
        cls = st.selectbox("Class", classes, **named, **MasksChoices.zoo_class.widget)
        name = st.radio(
            "Bug",
            [case.name for case in CASES if case.cls == cls],
            key=MasksChoices.zoo_bug.of(cls),
            label_visibility="collapsed",
        )
        case = find(name)
    with right:
        which = st.segmented_control(
            "Which",
            MasksChoices.zoo_fixed.among,
            required=True,
            format_func=str.capitalize,
            label_visibility="collapsed",
            **MasksChoices.zoo_fixed.widget,
        )
        report, shown = server().made("zoo", (case.name, which), lambda: _checked(case, fixed=which == "fix"))
        source = f" &nbsp; [{plain(case.report)}]({case.link})" if case.report else ""
        st.markdown(f"**{plain(case.name)}** – {plain(case.symptom)}{source}")
        st.code(shown, language=None, wrap_lines=True)
        if report.ok:
            st.success(f"Clean: {len([p for p in report.probed if p.applied])} probes, {report.seconds:.1f} s.")
        for finding in report.findings:
            st.error(f"**{finding.cls}** – {plain(finding.sentence)}")
            facts = {"Where": finding.where, "Cause": finding.cause, "Fix": finding.fix}
            st.markdown("\n".join(f"- **{k}**: {plain(v)}" for k, v in facts.items() if v))
        picture = report.dependency or next((f.picture for f in report.findings if f.picture is not None), None)
        if picture is not None:
            draw_edges(picture, "zoo")
    st.markdown("**Check your own model** at home; a server runs nobody's code:")
    st.code("headwise check my_model.py:make_model --expect causal", language="bash")


def _checked(case: Case, fixed: bool) -> tuple[Report, str]:
    """The report of a zoo model, and its symptom."""
    model = case.twin() if fixed else case.bug()
    return check(model, **case.options), case.show(model)
