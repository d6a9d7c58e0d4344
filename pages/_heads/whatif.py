"""What if: the chosen head removed, scaled, alone, or looking elsewhere, and the list of all that is changed."""

from __future__ import annotations

import dataclasses
import html
from dataclasses import dataclass

import streamlit as st

from headwise import Capture, capture, rerun
from headwise.interp.attention.call import AttentionCall
from headwise.interp.errors import InputError
from headwise.interp.masks.spoken import spoken_mask
from headwise.pages._heads.choices import SIDES, HeadsChoices, state
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared import changes
from headwise.pages._shared.bar import Run
from headwise.pages._shared.changes import Change
from headwise.pages._shared.frame import waiting
from headwise.pages._shared.markdown import plain
from headwise.pages._shared.shelf import server

SLOW = 0.7  # seconds from which on a run shows that it runs
HELP = {
    "what if": "Every change is one more run of the model, changed where attention computes. Its weights stay.",
    "how": "What stands in a removed head's place. **Mean**: what it says on average over this text. **Zero**: "
    "nothing. **Resample**: what it says at another position, drawn at random.",
    "remove": "Ablation: run the model without what this head says, and see what it did.",
    "only": "Isolation: the other heads of this layer are removed, so what is left of the layer is this head.",
    "forbid": "Then a click on a cell of the large head forbids that edge: the query may no longer see that key, and "
    "the rest of its row shares the weight.",
    "scale": "How loud the head speaks: 0 is silent, 1 as it is, 2 twice as loud.",
    "mask": "Who may see whom in every head of this layer, written as an expression: Causal, Window(left, right), "
    "Prefix(n), Global((0,)), Bidirectional, Strided(s), joined by & (and), | (or) and ~ (not).",
    "borrow": "The head looks where it looks in this other text: position by position, so both must be cut into "
    "equally many tokens.",
}
FORBIDDING = "Click a cell to forbid that edge · again to take it back · Escape when done"
SIDE_WORDS = {"after": "Edited", "before": "Before", "change": "Change"}
STYLE = """<style>
.edited{font-size:.86rem;line-height:1.9}
.edited b{background:light-dark(#dcebf2,#20384a);color:light-dark(#0b5a7d,#8fd0ee);
padding:.12rem .5rem;border-radius:4px;font-weight:600;margin-right:.5rem}
.edit{font-size:.82rem;line-height:1.3;overflow-wrap:anywhere}.edit.off{opacity:.6}
.wi-title{font-size:.95rem;font-weight:600;line-height:1.5}
.wi-title span{font-weight:400;opacity:.7;font-size:.82rem;margin-left:.4rem}
.st-key-part-whatif{gap:.5rem}
.st-key-part-whatif [data-testid=stHorizontalBlock],.st-key-part-whatif .stHorizontalBlock{gap:.4rem}
.st-key-part-whatif button:not([role=slider]){min-height:1.9rem;padding:.08rem .5rem}
.st-key-part-whatif button p,.st-key-part-whatif button kbd{font-size:.82rem}
.st-key-edits{gap:.1rem;max-height:9.2rem;overflow-y:auto}.st-key-edits>*{flex-shrink:0}
.st-key-edits button{min-height:1.4rem!important;padding:0!important}
.st-key-part-whatif [data-testid=stCaptionContainer] p{font-size:.76rem;line-height:1.4}
</style>"""


@dataclass(frozen=True)
class Edited:
    """The run as the changes make it: ``run`` is the given one where nothing is changed. ``refused`` says of each
    change that could not be made why."""

    run: Run
    made: tuple[Change, ...] = ()
    refused: tuple[tuple[Change, str], ...] = ()


def edited(run: Run) -> Edited:
    """The run under all changes that can be made in it."""
    cap = run.capture
    refused = [(change, why) for change in state.edits if (why := changes.wrong(cap, change))]
    wanted = [change for change in state.edits if change not in dict(refused)]
    others: dict[Change, Capture] = {}
    for change in [change for change in wanted if change.kind == "swap"]:
        call = cap.find(change.layer, change.stack or cap.stacks[0])
        found = borrowed(run, call, change.given[0])
        if isinstance(found, str):
            refused.append((change, found))
            wanted.remove(change)
        else:
            others[change] = found
    made = tuple(wanted)
    if not made:
        return Edited(run, (), tuple(refused))
    key = (run.key, made)

    def changed() -> Capture:
        return rerun(cap, [edit for change in made for edit in changes.engine(cap, change, others.get(change))])

    try:
        with waiting(st.empty(), "Running the edited model …", server().has("edited", key)):
            after = server().made("edited", key, changed)
    except (InputError, ValueError, IndexError) as error:
        return Edited(run, (), (*refused, *((change, str(error)) for change in made)))
    return Edited(dataclasses.replace(run, capture=after, key=("edited", *key), made=made), made, tuple(refused))


def banner(run: Run, now: Edited) -> None:
    """The line above grid and head that says that they show an edited run, and which side of it."""
    if not now.made and not now.refused:
        return
    count = f"{len(now.made)} change{'s' if len(now.made) != 1 else ''}"
    said = "; ".join(changes.words(run.capture, change) for change in now.made[:3])
    more = f" and {len(now.made) - 3} more" if len(now.made) > 3 else ""
    line = f"<b>Edited run</b>{count}: {html.escape(said)}{more}" if now.made else "<b>Not edited</b>"
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="banner"):
        with st.container(width="stretch"):
            st.html(f"{STYLE}<div class='edited' data-testid='edited'>{line}</div>")
        if now.made:
            st.segmented_control(
                "Shown",
                SIDES,
                format_func=SIDE_WORDS.get,
                required=True,
                label_visibility="collapsed",
                width="content",
                help="Grid and large head show the edited run, the run before, or the edited less the one before.",
                **HeadsChoices.side.widget,
            )
        st.button("Undo all", key="undo-all", icon=":material/undo:", on_click=_undo_all)
    for why in dict.fromkeys(why for _, why in now.refused):
        which = changes.write(tuple(change for change, own in now.refused if own == why))
        st.error(plain(f"{which[:120]}: {why}"))


def acts(run: Run, call: AttentionCall) -> None:
    """What is done to the chosen head by one click or key."""
    head = _head_of(run.capture, call)
    own = _own(head)
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
        _switch("Remove", "x", any(c.kind in changes.HOWS for c in own), _remove, (head,), HELP["remove"])
        alone = call.heads == 1
        help = "This layer has one head only." if alone else HELP["only"]
        _switch("Only this", "o", any(c.kind == "only" for c in own), _isolate, (head,), help, off=alone)
        _switch("Forbid edges", "e", state.forbidding, _start_forbidding, (), HELP["forbid"])
    if state.forbidding and (trouble := _no_cells()):
        st.info(trouble)
    if state.trouble:
        st.error(plain(state.trouble))


def settings(run: Run, call: AttentionCall) -> None:
    """What is done to it with a number, an expression or a text."""
    head = _head_of(run.capture, call)
    with st.container(horizontal=True, gap="small", vertical_alignment="top"):
        st.segmented_control(
            "In its place", changes.HOWS, required=True, help=HELP["how"], width="content", **HeadsChoices.how.widget
        )
        state.factor = next((c.given[0] for c in _own(head) if c.kind == "scale"), 1.0)
        with st.container(width=120):
            st.slider(
                "Scale",
                *changes.FACTORS,
                step=0.05,
                format="× %.2f",
                key=HeadsChoices.factor.key,
                help=HELP["scale"],
                on_change=_scale,
                args=(head,),
            )
    with st.container(horizontal=True, gap="xsmall"):
        masks = st.popover("Layer's mask", icon=":material/filter_b_and_w:", key="mask-open", on_change="rerun")
        if masks.open:
            with masks:
                _mask(run, call)
        texts = run.subject.family not in ("vision", "audio")
        help = None if texts else "A pattern is borrowed from a text; this model takes none."
        how = {"icon": ":material/swap_horiz:", "disabled": not texts, "help": help}
        swaps = st.popover("Swap the pattern", key="swap-open", on_change="rerun", **how)
        if swaps.open and texts:
            with swaps:
                _swap(run, call, head)


def listed(run: Run, now: Edited) -> None:
    """Each change with its undo."""
    refused = dict(now.refused)
    with st.container(key="edits"):
        for number, change in enumerate(state.edits):
            said = changes.write((change,))[:60] if change in refused else changes.words(run.capture, change)
            off = " off' title='not made" if change in refused else ""
            with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
                with st.container(width="stretch"):
                    st.html(f"<div class='edit{off}' data-testid='edit'>{html.escape(said)}</div>")
                st.button("undo", key=f"undo-{number}", type="tertiary", on_click=_undo, args=(change,))


def picking(call: AttentionCall, now: Edited) -> _canvas.Picking:
    """What the large head shows of forbidden edges, and whether a click there forbids one."""
    where = [c for c in now.made if c.kind == "forbid" and c.layer == call.layer and c.head == state.head]
    marks = [c.given for c in where if c.stack in ("", call.stack)]
    verb = "forbid this edge" if state.forbidding and not _no_cells() else ""
    return _canvas.Picking(verb, marks, FORBIDDING, "take this back")


def take_picks(cap: Capture, acted: dict) -> None:
    """What a person did to cells of the large head."""
    if "cell" in acted:
        call = cap.find(state.layer, state.stack)
        head = _head_of(cap, call)
        _toggle(dataclasses.replace(head, kind="forbid", given=tuple(acted["cell"])))
    if "done" in acted:
        state.forbidding = False


def borrowed(run: Run, call: AttentionCall, text: str) -> Capture | str:
    """A run of the text whose pattern may be swapped in, or why it cannot be, in a sentence."""
    if run.subject.family in ("vision", "audio"):
        return "A pattern is borrowed from a text; this model takes none."
    try:
        with st.spinner("Running the other text …", show_time=run.cost.run_seconds > SLOW):
            found = server().made("capture", ("other", run.key[:3], text), lambda: capture(run.subject, text))
            other = found.find(call.layer, call.stack)
    except (InputError, IndexError) as error:
        return str(error)
    for side, here, there in (("queries", call.queries, other.queries), ("keys", call.keys, other.keys)):
        if here != there:
            gap, verb = abs(there - here), "Shorten" if there > here else "Lengthen"
            what = "tokens" if call.queries == call.keys else side
            return f"That text has {there} {what}, this one {here}. {verb} it by {gap}."
    return found


def title(run: Run, call: AttentionCall) -> str:
    name = html.escape(_head_of(run.capture, call).name)
    return f"{STYLE}<div class='wi-title' title='{HELP['what if']}'>What if<span>{name}</span></div>"


# -- acts -------------------------------------------------------------------------------------------------------------
def _head_of(cap: Capture, call: AttentionCall) -> Change:
    """The chosen head, as a change without a kind."""
    return Change("", call.layer, state.head, "" if len(cap.stacks) == 1 else call.stack)


def _own(head: Change) -> list[Change]:
    return [change for change in state.edits if change.place == head.place]


def _toggle(change: Change, instead: tuple[str, ...] = ()) -> None:
    """Make a change, in place of those of these kinds at the same place; or take it back where it is made already."""
    state.trouble = ""
    if change in state.edits:
        state.edits = tuple(c for c in state.edits if c != change)
    else:
        kept = tuple(c for c in state.edits if c.place != change.place or c.kind not in instead)
        state.edits = (*kept, change)[-changes.MOST :]


def _without(place: tuple, kinds: tuple[str, ...]) -> bool:
    """Take back what is changed in these ways there → whether there was anything."""
    kept = tuple(c for c in state.edits if c.place != place or c.kind not in kinds)
    found, state.edits, state.trouble = kept != state.edits, kept, ""
    return found


def _remove(head: Change) -> None:
    if not _without(head.place, changes.HOWS):
        _toggle(dataclasses.replace(head, kind=state.how))


def _isolate(head: Change) -> None:
    if not _without(head.place, ("only",)):
        _toggle(dataclasses.replace(head, kind="only", given=(state.how,)))


def _scale(head: Change) -> None:
    _without(head.place, ("scale",))
    if state.factor != 1:
        _toggle(dataclasses.replace(head, kind="scale", given=(round(state.factor, 2),)))


def _start_forbidding() -> None:
    state.forbidding = not state.forbidding
    if state.forbidding:
        state.view = "heatmap"


def _undo(change: Change) -> None:
    if change in state.edits:
        _toggle(change)


def _undo_all() -> None:
    state.edits, state.trouble = (), ""


def _mask_written(layer: Change) -> None:
    if not state.mask.strip():
        return
    try:
        said = repr(spoken_mask(state.mask))
    except InputError as error:
        state.trouble = str(error)
        return
    _without(layer.place, ("mask",))
    _toggle(dataclasses.replace(layer, kind="mask", given=(said,)))
    state.mask = ""


def _swapped(head: Change) -> None:
    _without(head.place, ("swap",))
    _toggle(dataclasses.replace(head, kind="swap", given=(state.borrowed,)))


# -- fields -----------------------------------------------------------------------------------------------------------
def _switch(label: str, key: str, on: bool, act, args: tuple, help: str, *, off: bool = False) -> None:
    st.button(
        label,
        key=f"whatif-{key}",
        shortcut=key,
        type="primary" if on else "secondary",
        on_click=act,
        args=args,
        help=help,
        disabled=off,
    )


def _no_cells() -> str:
    """Why a cell of the large head is no single edge now; "" where it is one."""
    if state.view != "heatmap":
        return "Edges are forbidden in the heatmap: choose it above the head."
    if state.words or not state.special:
        return "Edges are forbidden between single tokens: switch Merge words off and Special tokens on."
    return ""


def _mask(run: Run, call: AttentionCall) -> None:
    layer = Change("", call.layer, -1, "" if len(run.capture.stacks) == 1 else call.stack)
    st.text_input(
        f"Mask of layer {call.layer}, all heads",
        placeholder="Causal() & Window(4, 0)",
        help=HELP["mask"],
        on_change=_mask_written,
        args=(layer,),
        **HeadsChoices.mask.widget,
    )
    st.caption(f"Now: {plain(repr(call.pattern) if call.pattern.size is None else 'a mask without a name')}")


def _swap(run: Run, call: AttentionCall, head: Change) -> None:
    st.text_area("Look as in this text", height=90, help=HELP["borrow"], **HeadsChoices.borrowed.widget)
    found: Capture | str = "Write a text that is cut into equally many tokens."
    if state.borrowed.strip():
        found = borrowed(run, call, state.borrowed[: changes.LONGEST_TEXT])
    if isinstance(found, str):
        (st.error if state.borrowed.strip() else st.caption)(plain(found))
    else:
        st.caption(f"{call.queries} tokens, as many as here.")
    fits = not isinstance(found, str)
    st.button("Swap it in", key="whatif-swap", on_click=_swapped, args=(head,), disabled=not fits, type="primary")
