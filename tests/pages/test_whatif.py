"""What if, without a browser: what the page says of good and of bad changes, and that its code gives its numbers."""

import re
import time
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwise import capture, edits, rerun
from headwise.interp.analysis.effects import effect, moved
from headwise.interp.analysis.targets import target
from headwise.models import load
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared import changes
from headwise.pages._shared.changes import Change
from tests.pages.test_heads import again, app, sentences

TEXT = "The people of the United States and the people of the world."
OTHER = "The state of the United States and the state of the world."


def html(test, mark: str) -> str:
    return unescape(" ".join(h.proto.body for h in test.get("html") if f"data-testid='{mark}'" in h.proto.body))


def tile(test, place: int = 0) -> float:
    """The number in a tile of the panel."""
    found = re.findall(r"<b>([^<]*)</b>", html(test, "effect"))[place]
    return float(found.replace("−", "-").removesuffix(" %"))


def done(made, text=TEXT):
    cap = capture(load("tiny-decoder"), text)
    return effect(cap, rerun(cap, made), target(cap))


# -- changes and addresses ------------------------------------------------------------------------------------------
PLACES = {"layer": st.integers(0, 99), "head": st.integers(0, 99), "stack": st.sampled_from(["", "cross", "decoder"])}
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)
CHANGES = st.one_of(
    st.builds(Change, st.sampled_from(changes.HOWS), **PLACES),
    st.builds(Change, st.just("only"), **PLACES, given=st.tuples(st.sampled_from(changes.HOWS))),
    st.builds(Change, st.just("scale"), **PLACES, given=st.tuples(st.sampled_from([0.0, 0.35, 1.5, 2.0]))),
    st.builds(Change, st.just("forbid"), **PLACES, given=st.tuples(st.integers(0, 999), st.integers(0, 999))),
    st.builds(Change, st.just("swap"), **PLACES, given=st.tuples(texts)),
    st.builds(
        Change,
        st.just("mask"),
        layer=PLACES["layer"],
        stack=PLACES["stack"],
        given=st.sampled_from([("Causal() & ~Window(2, 0)",), ("Causal() | Global((0, 3))",)]),
    ),
)


@given(st.lists(CHANGES, max_size=6, unique=True))
def test_changes_survive_an_address(made):
    assert changes.read(changes.write(tuple(made))) == tuple(made)


def test_an_address_is_compact():
    made = (Change("zero", 1, 6), Change("forbid", 1, 6, given=(40, 13)), Change("mean", 2, 0, "cross"))
    assert changes.write(made) == "zero-1-6~forbid-1-6-40-13~mean-cross-2-0"


@given(st.text(st.sampled_from("zeromeanforbidscaleonlymaskswap-~0123456789.!()&é% "), max_size=60))
def test_whatever_stands_in_an_address_is_read_or_left_out(text):
    assert all(isinstance(change, Change) for change in changes.read(text))


@pytest.mark.parametrize(
    "part",
    ["zero", "zero-1", "zero-1-6-7", "zero-x-1-6-9", "zero-1--6", "nothing-1-6", "scale-1-6-9", "scale-1-6-nan",
     "only-1-6-max", "forbid-1-6-4", "forbid-1-6-4-x", "mask-1-Causal", "mask-1-", "swap-1-6-", "zero-1-99999999"],
)  # fmt: skip
def test_what_means_nothing_is_dropped_and_the_rest_stays(part):
    assert changes.read(f"{part}~mean-0-3") == (Change("mean", 0, 3),)


def test_a_new_input_ends_what_names_positions_and_a_new_model_ends_all():
    made = changes.read("zero-1-6~forbid-1-6-40-13~swap-1-2-a~mask-1-Causal()")
    assert changes.write(changes.left(made, "input")) == "zero-1-6~mask-1-Causal()"
    test = app(text=TEXT, edits="zero-1-6~forbid-1-6-8-4")
    test.text_area(key="text").set_value(OTHER)
    again(test)
    assert test.session_state["edits"] == (Change("zero", 1, 6),)
    test.selectbox(key="model").set_value("tiny-attention-only")
    again(test)
    assert test.session_state["edits"] == ()


# -- the numbers ----------------------------------------------------------------------------------------------------
CASES = {
    "zero-1-6": [edits.ZeroHead(1, 6)],
    "mean-1-6": [edits.MeanHead(1, 6)],
    "resample-1-6": [edits.Resample(edits.HeadOutput(1, 6))],
    "scale-1-6-0.35": [edits.Scale(edits.HeadOutput(1, 6), 0.35)],
    "only-1-6-zero": [edits.Isolate(1, 6)],
    "forbid-1-6-8-4~zero-0-0": [edits.ForbidEdge(1, 8, 4, head=6), edits.ZeroHead(0, 0)],
    "mask-1-Causal()&Window(2,0)": [edits.ReplaceMask(1, changes.spoken_mask("Causal() & Window(2, 0)"))],
}


@pytest.mark.parametrize("made", CASES)
def test_the_tiles_are_the_effect(made):
    test = app(text=TEXT, layer="1", head="6", edits=made)
    assert not sentences(test)
    wanted = done(CASES[made])
    assert tile(test) == pytest.approx(wanted.change, abs=6e-3, rel=0.05)
    assert tile(test, 2) == pytest.approx(wanted.kl, rel=0.06, abs=1e-6)
    before, after = re.search(r"<b>([\d.]+) → ([\d.]+) %", html(test, "effect")).groups()
    assert (float(before), float(after)) == pytest.approx([100 * p for p in wanted.probability], abs=0.51)
    assert "Edited run" in html(test, "edited") and html(test, "now-says")


def test_a_swapped_pattern():
    test = app(text=TEXT, layer="1", head="6", edits=changes.write((Change("swap", 1, 6, given=(OTHER,)),)))
    pattern = capture(load("tiny-decoder"), OTHER).find(1).weights(6)
    wanted = done([edits.Replace(edits.Pattern(1, 6), pattern)])
    assert tile(test) == pytest.approx(wanted.change, abs=6e-3)


@pytest.mark.parametrize("side", ["after", "before", "change"])
def test_the_head_shows_the_side_that_is_chosen(side, monkeypatch):
    drawn = {}
    monkeypatch.setattr(_canvas, "large", lambda explorer, matrix, **how: drawn.update(how, matrix=matrix))
    app(text=TEXT, layer="2", head="3", edits="zero-1-6~zero-0-0", side=side)
    cap = capture(load("tiny-decoder"), TEXT)
    was = cap.find(2).weights(3)[0]
    now = rerun(cap, CASES["zero-1-6"] + [edits.ZeroHead(0, 0)]).find(2).weights(3)[0]
    wanted = {"after": now, "before": was, "change": now - was}[side]
    assert float((drawn["matrix"].values - wanted).abs().max()) < 1e-6
    assert ("(edited)" in drawn["matrix"].of) is (side != "before")


@pytest.mark.parametrize(
    "view",
    [
        {"edits": "mean-1-6~forbid-1-6-8-4~mask-2-Causal()&Window(3,0)"},
        {"edits": "only-1-6-mean", "answer": " the", "rather": " of"},
        {"edits": "scale-1-6-0.5", "answer": "Congress", "counted": "whole"},
        {"edits": changes.write((Change("swap", 1, 6, given=(OTHER,)),)), "side": "change"},
        {"edits": "zero-cross-1-1", "model": "tiny-encoder-decoder", "text": "knight", "layer": "2"},
        {"edits": "zero-1-1", "model": "tiny-vit", "layer": "2", "head": "1"},
    ],
)
def test_the_code_gives_the_number_that_stands_beside_it(view):
    test = app(**({"text": TEXT, "layer": "1", "head": "2"} | view))
    assert not sentences(test)
    code = next(block.value for block in test.code if "rerun" in block.value)
    scope: dict = {}
    exec(code, scope)
    assert tile(test) == pytest.approx(scope["done"].change, abs=6e-3, rel=0.05)
    call = scope["cap"].find(test.session_state["layer"], test.session_state["stack"])
    assert tuple(scope["view"].values.shape) == (call.queries, call.keys)


def test_a_bare_encoder_says_how_far_its_output_moves(minilm_folder):
    test = app(model=str(minilm_folder), text="A bare encoder.", edits="zero-2-1")
    cap = capture(load(str(minilm_folder)), "A bare encoder.")
    wanted = moved(cap, rerun(cap, [edits.ZeroHead(2, 1)]))
    assert tile(test) == pytest.approx(100 * wanted.relative, rel=0.01)
    assert "gives no answer" in " ".join(c.value for c in test.caption)


@pytest.mark.parametrize("model", ["tiny-encoder", "tiny-classifier", "tiny-attention-only", "tiny-encoder-decoder"])
def test_every_kind_of_answer(model):
    test = app(model=model, edits="mean-1-1")
    assert not sentences(test)
    assert html(test, "effect") and html(test, "now-top")


# -- acts -----------------------------------------------------------------------------------------------------------
def test_remove_scale_isolate_and_undo():
    test = app(text=TEXT, layer="1", head="6", how="zero")
    test.button(key="whatif-x").click()
    again(test)
    assert test.session_state["edits"] == (Change("zero", 1, 6),)
    test.slider(key="factor").set_value(0.5)
    again(test)
    test.button(key="whatif-o").click()
    again(test)
    assert changes.write(test.session_state["edits"]) == "zero-1-6~scale-1-6-0.5~only-1-6-zero"
    test.button(key="undo-1").click()
    again(test)
    assert changes.write(test.session_state["edits"]) == "zero-1-6~only-1-6-zero"
    assert test.slider(key="factor").value == 1
    test.button(key="whatif-x").click()
    again(test)
    assert changes.write(test.session_state["edits"]) == "only-1-6-zero"
    test.button(key="undo-all").click()
    again(test)
    assert test.session_state["edits"] == () and not html(test, "edited")


def opened(test, popover: str) -> None:
    """With what stands in a popover; here it closes at every run, in a browser it stays."""
    test.session_state[popover] = True
    again(test)


def test_a_mask_is_written():
    test = app(text=TEXT, layer="1", head="6")
    opened(test, "mask-open")
    test.text_input(key="mask").set_value("Causal() & Windo(2, 0)")
    again(test)
    assert "'Windo' is no mask" in sentences(test) and not test.session_state["edits"]
    opened(test, "mask-open")
    test.text_input(key="mask").set_value("Causal() & Window(2, 0)")
    again(test)
    assert not sentences(test) and changes.write(test.session_state["edits"]) == "mask-1-Causal()&Window(2,0)"


# -- bad input ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("view", "said"),
    [
        ({"answer": "the", "rather": "the"}, "The answer and its alternative are the same"),
        ({"edits": "zero-9-0"}, "Layer 9 is not there: decoder has layers 0 … 3."),
        ({"edits": "zero-cross-1-0"}, "Layer 1 is not there: there is no cross here."),
        ({"edits": "zero-1-8"}, "Head 8 is not there: layer 1 has heads 0 … 7."),
        ({"edits": "forbid-1-6-90-1"}, "Query 90 is not there"),
        ({"edits": "forbid-1-6-8-90"}, "Key 90 is not there"),
        ({"edits": "swap-1-6-Short."}, "Lengthen it by"),
        ({"answer": "zero", "model": "tiny-classifier"}, "knows the classes"),
    ],
)
def test_bad_input_is_one_sentence_and_the_page_stands(view, said):
    test = app(**({"text": TEXT, "layer": "1", "head": "6"} | view))
    assert said in sentences(test).replace("\\", "")
    assert len(test.error) == 1 and test.get("bidi_component") is not None
    assert test.button(key="whatif-x") is not None


def test_what_can_be_made_is_made_beside_what_cannot():
    test = app(text=TEXT, layer="1", head="6", edits="zero-9-0~zero-1-6")
    assert "Layer 9 is not there" in sentences(test)
    assert tile(test) == pytest.approx(done([edits.ZeroHead(1, 6)]).change, abs=6e-3)
    test.button(key="undo-0").click()
    again(test)
    assert not sentences(test) and test.session_state["edits"] == (Change("zero", 1, 6),)


def test_hostile_texts_are_escaped():
    evil = "<img src=x onerror=alert(1)> $x$"
    test = app(text=TEXT, answer=evil, edits=changes.write((Change("swap", 1, 6, given=(evil,)),)))
    assert not test.exception
    assert "<img" not in " ".join(h.proto.body for h in test.get("html"))


def test_an_answer_takes_less_than_a_second():
    test = app(text=TEXT, layer="1", head="6")
    started = time.perf_counter()
    test.button(key="whatif-x").click()
    again(test)
    assert html(test, "effect") and time.perf_counter() - started < 3  # alone about 0.4 s; tests run side by side


def test_the_neuron_view_takes_the_edited_run_apart_and_so_does_its_code():
    test = app(text=TEXT, layer="2", head="5", pin="query-6", edits="zero-1-6~zero-0-0")
    assert not sentences(test)
    code = next(block.value for block in test.code if "neuron(" in block.value)
    scope: dict = {}
    exec(code, scope)
    cap = rerun(capture(load("tiny-decoder"), TEXT), [edits.ZeroHead(1, 6), edits.ZeroHead(0, 0)])
    row = cap.find(2).weights(5)[0, 6]
    assert scope["found"].weight == pytest.approx(float(row[scope["found"].key]), abs=1e-6)
