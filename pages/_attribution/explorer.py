"""The question, which of two methods to believe, what each says, and how it was tested. A click runs only this."""

from __future__ import annotations

import html

import streamlit as st

from headwise.interp.analysis.attribution.faithfulness import Faithfulness, agreement
from headwise.interp.analysis.attribution.features import Features
from headwise.interp.analysis.effects import answers_at_all
from headwise.interp.analysis.targets import Target
from headwise.interp.drawing import faithful
from headwise.interp.errors import InputError
from headwise.pages._attribution import pictures
from headwise.pages._attribution.about import about
from headwise.pages._attribution.choices import state
from headwise.pages._attribution.code import code
from headwise.pages._attribution.downloads import curves_file, maps_files
from headwise.pages._attribution.found import attribution_of, faithfulness_of, features_of, floor_of
from headwise.pages._attribution.methods import choose, usual
from headwise.pages._attribution.pictures import Side
from headwise.pages._attribution.ranking import ranking
from headwise.pages._attribution.sanity import sanity_check
from headwise.pages._attribution.settings import settings
from headwise.pages._attribution.style import STYLE
from headwise.pages._attribution.tested import tested
from headwise.pages._shared.bar import Run, share
from headwise.pages._shared.defence import fragment
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.question import ask

MAPS = "attribution-maps"
NO_ANSWER = "{name} gives no answer, a token or a class, so there is none whose reasons could be asked about."


@fragment
def explorer(run: Run) -> None:
    st.html(STYLE)
    defaults = {}
    if not answers_at_all(run.capture):
        st.info(NO_ANSWER.format(name=plain(run.subject.name)), icon=":material/visibility_off:")
    elif (asked := ask(run)).aim is not None:
        with st.container(key="attribution"):
            defaults = _explained(run, asked.aim)
    if not share(run, state, **defaults):
        st.caption(
            "A long text or a file of your own does not travel in a link; the link carries the rest of the view."
        )


def _explained(run: Run, aim: Target) -> dict[str, str]:
    """Draw it all → what choices are here until somebody chooses."""
    try:
        features = features_of(run)
    except InputError as error:
        st.info(str(error), icon=":material/visibility_off:")
        return {}
    _tried(run, aim, features)
    return {"baseline": features.baselines[0], "compared": usual(run)}


def _tried(run: Run, aim: Target, features: Features) -> None:
    verdict = st.empty()
    names = choose(run)
    kind = settings(features)
    sides = [_side(run, aim, name, kind) for name in names]
    found = [side.found for side in sides]
    if not any(found):
        st.info(" ".join(side.why for side in sides if side.why) or "Nothing is computed yet.")
        return
    pictures.maps(sides, key=MAPS)
    with st.container(key="attribution-tested"):
        left, right = st.columns([9, 13], gap="medium")
    with right:
        results = _results(run, aim, found, kind)
        if any(results):
            charts = [faithful.curve(curve, results) for curve in faithful.CURVES]
            pictures.curves(charts, names, key="attribution-curves", of=MAPS)
            curves_file([one for one in results if one])
        if state.tested:
            ranking(run, aim, kind)
        about(names)
    if told := _verdict(found, results):
        verdict.html(told)
    with left:
        tested(results, found)
        if state.checked:
            sanity_check(run, aim, names, kind)
        maps_files(run, aim, [one for one in found if one])
    code(run, aim, names, kind)


def _side(run: Run, aim: Target, name: str, kind: str) -> Side:
    """What one method says; why not, where it says nothing."""
    try:
        found = attribution_of(run, aim, name, kind)
    except InputError as error:
        return Side(name, why=str(error))
    return Side(name, found, "" if found else f"{name[:1].upper()}{name[1:]} was cancelled.")


def _results(run: Run, aim: Target, found: list, kind: str) -> list[Faithfulness | None]:
    """The tests of each; none where they cannot be tested, which is said."""
    try:
        floor = floor_of(run, aim, kind)
        if floor is None:
            return [None for _ in found]
        return [one and faithfulness_of(run, one, kind, floor) for one in found]
    except InputError as error:
        st.info(str(error), icon=":material/visibility_off:")
        return [None for _ in found]


def _verdict(found: list, results: list[Faithfulness | None]) -> str:
    """The answer of the page, as HTML; all of it escaped."""
    told, why, alike = "", "", ""
    done = [one for one in results if one]
    if len(done) == 2 and done[0].method != done[1].method:
        told, why = faithful.verdict(*done)
        alike = faithful.agreement_sentence(agreement(*found))
    elif done:
        told, why = faithful.alone(done[0])
    if not told:
        return ""
    return (
        f"<div class='verdict' data-testid='verdict' title='{html.escape(faithful.GAIN)}'><b>{html.escape(told)}</b> "
        f"{html.escape(why)} <span data-testid='agreement'>{html.escape(alike)}</span></div>"
    )
