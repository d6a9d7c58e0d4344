"""The question, the two inputs, what of one has to be put into the other, and by which paths. A click runs only
this."""

from __future__ import annotations

import streamlit as st

from headwise.interp.analysis.effects import answers_at_all
from headwise.interp.analysis.targets import Target
from headwise.interp.drawing.patched import HEADED
from headwise.interp.errors import InputError
from headwise.pages._patching.about import about
from headwise.pages._patching.choices import state
from headwise.pages._patching.code import code
from headwise.pages._patching.maps import map_of, maps, take_events
from headwise.pages._patching.paths import paths
from headwise.pages._patching.prompts import prompts
from headwise.pages._shared.bar import Run, share
from headwise.pages._shared.defence import fragment
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.question import ask

NO_ANSWER = "{name} gives no answer, a token or a class, so there is none that could be brought back."
STYLE = """<style>
.prompts { display: flex; flex-wrap: wrap; gap: .5rem 3px; font-size: .86rem; line-height: 1.3 }
.prompts > div { display: grid; gap: 3px; grid-template-rows: 1fr 1fr }
.prompts span { padding: .12rem .38rem; min-width: .9rem; min-height: 1.4rem; border-radius: 5px; white-space: pre;
  text-align: center; background: color-mix(in srgb, currentColor 6%, transparent) }
.prompts .names span { background: none; font-size: .76rem; opacity: .66; text-align: right; padding-left: 0 }
.prompts .differs { font-weight: 600;
  background: color-mix(in srgb, var(--st-primary-color, #0b6e99) 24%, transparent);
  box-shadow: inset 0 -2px 0 var(--st-primary-color, #0b6e99) }
.prompts .none { background: none; border: 1px dashed color-mix(in srgb, currentColor 26%, transparent) }
.prompts .gap { place-content: center; opacity: .5 }
@media (max-width: 1100px) {
.st-key-patching [data-testid=stHorizontalBlock]:has(> [data-testid=stColumn]) { flex-wrap: wrap }
.st-key-patching [data-testid=stColumn] { min-width: 100% }
}
.st-key-patching button { min-height: 1.75rem; padding-block: 0 }
.st-key-patching button p { font-size: .82rem }
.st-key-patching [data-testid=stVerticalBlock] { gap: .55rem }
.st-key-patching hr { margin: .4rem 0 }
</style>"""


@fragment
def explorer(run: Run) -> None:
    take_events(run)
    st.html(STYLE)
    with st.container(key="patching"):
        if answers_at_all(run.capture):
            aim = ask(run).aim
            if aim is not None:
                _patched(run, aim)
        else:
            st.info(NO_ANSWER.format(name=plain(run.subject.name)), icon=":material/visibility_off:")
    if not share(run, state):
        st.caption(
            "A long text or a file of your own does not travel in a link; the link carries the rest of the view."
        )


def _patched(run: Run, aim: Target) -> None:
    two = prompts(run, aim)
    if two is None:
        return
    try:
        tables = maps(two, aim)
        headed = [kind for kind in HEADED if not two.kinds[kind]]
        if headed:
            st.divider()
            *columns, last = st.columns(len(headed) + 1, gap="medium")
            for column, kind in zip(columns, headed, strict=True):
                with column:
                    map_of(two, kind, tables)
            with last:
                paths(two, aim, tables.best)
    except InputError as error:
        st.info(plain(str(error)), icon=":material/visibility_off:")
    about()
    code(two, aim)
