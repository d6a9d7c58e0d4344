"""The Stream page without a browser: what it asks, shows and refuses for each kind of model."""

import pytest
from streamlit.testing.v1 import AppTest

from headwise import Capture, capture
from headwise.interp.analysis.lens import lens, norms
from headwise.interp.analysis.logits import logit_attribution
from headwise.interp.analysis.targets import target
from headwise.interp.run.anatomy import Anatomy
from headwise.models import load
from headwise.pages._shared import pictures
from tests.browser.serving import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from headwise.pages.stream import stream
stream()
"""
TEXT = "The people of the United States"


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn last, by the component's key: (what, how)."""
    found = {}
    for name in ("cells", "bars", "lines"):
        monkeypatch.setattr(pictures, name, lambda what, *more, key, **how: found.update({key: (what, {**how})}))
    return found


def app(**view) -> AppTest:
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT)), default_timeout=240)
    for name, value in view.items():
        test.query_params[name] = value
    return test.run()


def said(test: AppTest, part: str) -> str:
    assert not test.exception, test.exception
    return " ".join(h.proto.body for h in test.get("html") if part in h.proto.body)


def test_a_decoder_is_read_early_and_taken_apart(drawn):
    test = app(text=TEXT)
    assert not test.error and not test.info
    cap = capture(load("tiny-decoder"), TEXT)
    aim, early = target(cap), lens(cap)
    cells, how = drawn["stream-cells"]
    assert cells.rows == ("after 3", "after 2", "after 1", "after 0", "start") and len(early.labels) == 5
    assert cells.columns == cap.axes["input"].labels
    assert cells.values[0, -1] == pytest.approx(float(cap.logits[0, -1].softmax(-1)[aim.token]), rel=1e-4)
    assert how["selected"] == (4, len(cells.columns) - 1) and how["marked"] == len(cells.columns) - 1
    assert "embedding + 8 writes = stream to" in said(test, "headline")
    best = cap.logits[0, -1].topk(2).indices.tolist()
    table = logit_attribution(cap, target(cap, *best))
    rows, sums = drawn["stream-bars"][0], drawn["stream-bars"][1]["sums"]
    assert sum(row["value"] for row in rows) == pytest.approx(table.attrs["own"], rel=1e-4)
    assert [name for name, _, _ in sums] == ["sum", "the model’s own", "not explained"]
    assert sums[0][1] == sums[1][1] == f"{table.attrs['own']:+.2f}".replace("-", "−")


@pytest.mark.parametrize(
    "view",
    [
        {"reading": "norms", "measure": "cosine"},
        {"reading": "norms", "measure": "change"},
        {"reading": "tuned"},
        {"shade": "rank", "row": "2", "position": "3"},
        {"shade": "kl", "parts": "map"},
        {"parts": "positions", "against": "∅"},
        {"row": "99", "position": "99", "asked": "99", "stream": "nothing"},
        {"row": "x", "reading": "y", "answer": "#5", "against": "#6"},
        {"asked": "2"},
    ],
)
def test_every_view_draws_and_every_address_opens(drawn, view):
    test = app(text=TEXT, **view)
    assert not test.exception and not test.error
    assert "stream-cells" in drawn and ("stream-bars" in drawn or "stream-map" in drawn)


@pytest.mark.parametrize(
    "model, parts",
    [("tiny-encoder", None), ("tiny-encoder-decoder", True), ("tiny-vit", True), ("tiny-classifier", None),
     ("tiny-attention-only", True)],
)  # fmt: skip
def test_every_kind_of_model(drawn, model, parts):
    test = app(model=model)
    assert not test.exception and not test.error
    assert "stream-cells" in drawn
    assert "stream-bars" in drawn or (parts is None and test.info)


def test_a_tuned_lens_says_what_it_gained(drawn):
    test = app(model="tiny-attention-only", text=TEXT, reading="tuned", row="0")
    early = lens(capture(load("tiny-attention-only"), TEXT), tuned=True)
    cells, _ = drawn["stream-cells"]
    assert cells.texts[-1] == tuple(early.best_labels[0])
    plain, gained = early.translators.plain[0], early.translators.gained[0]
    assert gained < plain and f"{gained:.2f} after this block, through the logit lens {plain:.2f}" in said(test, "note")


def test_norms_are_those_of_the_library(drawn):
    app(text=TEXT, reading="norms")
    table = norms(capture(load("tiny-decoder"), TEXT))
    cells, _ = drawn["stream-cells"]
    for row, place in enumerate(cells.places):
        own = table[table["after"] == ("start", "0", "1", "2", "3")[place]].sort_values("position")["norm"]
        assert cells.values[row] == pytest.approx(own.to_numpy(), rel=1e-6)


def test_an_answer_that_is_its_own_alternative_is_one_sentence(drawn):
    test = app(text=TEXT, answer="people", against="people")
    (error,) = test.error
    assert "are the same" in error.value and "stream-bars" not in drawn
    assert "stream-cells" in drawn  # when it appears can still be asked


def test_a_word_that_is_no_token_is_one_sentence(drawn):
    test = app(model="tiny-vit", answer="a cat")
    (error,) = test.error
    assert "knows the classes" in error.value and "stream-cells" in drawn


def test_hostile_words_are_escaped(drawn):
    evil = "<img src=x onerror=alert(1)>"
    test = app(text=f"{evil} $x$ :red[y]", answer=evil)
    assert not test.exception
    assert "<img" not in said(test, "question") + said(test, "note")


def test_the_code_makes_the_view(drawn):
    test = app(text=TEXT, answer=" people", against=" of")
    code = next(c.value for c in test.code)
    made = {}
    exec(code, made)  # what the page tells people to run
    assert made["parts"].attrs["own"] == pytest.approx(
        target(capture(load("tiny-decoder"), TEXT), " people", " of").value(made["cap"]), rel=1e-5
    )


def test_a_stream_that_could_not_be_proven_is_said_and_nothing_is_drawn(drawn, monkeypatch):
    refused = Anatomy(refused=("Two additions could each be the stream.",))
    monkeypatch.setattr(Capture, "anatomy", property(lambda cap: refused))
    test = app(text="A text of which nothing is on the shelf.")
    assert not test.exception and not test.error
    assert "Two additions could each be the stream." in said(test, "refused")
    (info,) = test.info
    assert "could not be proven" in info.value and not drawn


def test_an_answer_at_another_position(drawn):
    """At the third token a decoder is asked for its fourth."""
    app(text=TEXT, asked="2", against="∅")
    cap = capture(load("tiny-decoder"), TEXT)
    cells, how = drawn["stream-cells"]
    assert how["marked"] == 2 and how["selected"] == (4, 2)
    best = float(cap.logits[0, 2].softmax(-1).max())
    assert cells.values[0, 2] == pytest.approx(best, rel=1e-4)
    assert drawn["stream-bars"][1]["sums"][1][1] == f"{float(cap.logits[0, 2].max()):+.2f}".replace("-", "−")


def test_a_part_leads_to_its_head(drawn):
    app(text=TEXT, parts="map", against=" of")
    cells, how = drawn["stream-map"]
    assert cells.columns == (*map(str, range(8)), "MLP") and cells.rows[0] == "layer 3"
    assert how["leads"].heads[0][5] == {"layer": 3, "head": 5, "rather": " of"} and how["leads"].heads[0][8] is None
    assert how["leads"].base == "./?text=The+people+of+the+United+States&"
