"""The Circuits page without a browser: what it draws, asks, refuses and says for each kind of model."""

import pytest
from streamlit.testing.v1 import AppTest

from headwise import capture
from headwise.interp.analysis.circuits.compositions import compositions
from headwise.interp.analysis.circuits.graph import graph
from headwise.interp.analysis.circuits.reading import reads_and_writes
from headwise.interp.analysis.patching.corrupting import corrupted
from headwise.interp.analysis.targets import target
from headwise.models import load
from headwise.pages._circuits import pictures as own
from headwise.pages._shared import pictures
from tests.browser.serving import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from headwise.pages.circuits import circuits
circuits()
"""
TEXT, OTHER = "The people of the United", "The people of the world"


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn last, by the component's key: (what, how)."""
    found = {}
    for room, name in ((pictures, "cells"), (pictures, "bars"), (own, "graph"), (own, "way")):
        monkeypatch.setattr(room, name, lambda what, *more, key, **how: found.update({key: (what, how)}))
    return found


def app(**view) -> AppTest:
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT)), default_timeout=400)
    for name, value in view.items():
        test.query_params[name] = value
    return test.run()


def said(test: AppTest, part: str) -> str:
    assert not test.exception, test.exception
    return " ".join(h.proto.body for h in test.get("html") if part in h.proto.body)


def test_the_graph_of_an_answer_and_what_it_restores(drawn):
    test = app(text=TEXT, instead=OTHER, layer="1", head="2")
    assert not test.error and not test.info
    cap = capture(load("tiny-decoder"), TEXT)
    best = cap.logits[0, -1].topk(2).indices.tolist()
    circuit = graph(cap, corrupted(cap, OTHER), target(cap, *best))
    shown, how = drawn["circuit-graph"]
    assert len(shown.wires) == sum(len(edge.receivers) for edge in circuit.edges)
    assert how["selected"] == "decoder head 1 2"
    restored = said(test, "data-testid='restored'")
    assert f"<b>{circuit.restored:.0%}</b> restored by {len(circuit.edges)} of 1,519 edges, run alone" in restored
    assert {row[2] for row in shown.rows} == {"·United"}  # where the two texts differ, and the answer is read
    assert shown.columns[1] == "0" and shown.places
    read = reads_and_writes(cap, (1, 2))
    chips = said(test, "data-testid='chips'")
    label = read.looks_for(6, 1, through="run")[0][1].replace(" ", "·")
    assert f"{label}<i>" in chips and "In this run it looks most at" in chips


def test_compositions_are_those_of_the_library(drawn):
    app(text=TEXT, instead=OTHER, layer="1", head="5", kind="K")
    table = compositions(capture(load("tiny-decoder"), TEXT)).query("kind == 'K'")
    cells, how = drawn["circuit-wired"]
    assert cells.rows[-1] == "layer 0" and how["selected"] == (2, 5)
    line = table[(table["to layer"] == 1) & (table["to head"] == 5) & (table["from head"] == 1)]
    assert cells.values[-1][1] == pytest.approx(float(line["score"].iloc[0]))
    rows = drawn["circuit-pairs"][0]
    assert rows[0]["name"] == "0·1 → 1·5" and rows[0]["go"] == {"layer": 1, "head": 5}


@pytest.mark.parametrize(
    "model, view",
    [
        ("tiny-vit", {}),
        ("tiny-encoder", {"text": "and god said let there be [MASK]"}),
        ("tiny-classifier", {"text": "a good film", "instead": "a bad film"}),
        ("tiny-encoder-decoder", {"text": "nation", "corruption": "mean"}),
        ("tiny-attention-only", {"text": "The people of the United States. The people of the"}),
    ],
)
def test_every_kind_of_model(drawn, model, view):
    test = app(model=model, **view)
    assert not test.exception and not test.error
    assert "circuit-graph" in drawn or "hardly anything" in test.info[0].value
    assert "circuit-wired" in drawn and "circuit-pairs" in drawn
    keys = [place.key for place in drawn["circuit-graph"][0].places] if "circuit-graph" in drawn else []
    assert len(keys) == len(set(keys))


def test_a_model_without_an_answer_still_shows_its_heads(drawn, minilm_folder):
    test = app(model="minilm-l6")
    assert not test.exception and "gives no answer" in test.info[0].value
    assert "circuit-graph" not in drawn and "it looks for" in said(test, "chips")


@pytest.mark.parametrize(
    "view",
    [
        {"layer": "99", "head": "99", "kind": "X", "token": "99", "goal": "7", "corruption": "nothing"},
        {"part": "decoder mlp 3", "through": "embedding", "kind": "V", "corruption": "mean"},
        {"answer": "#5", "against": "#6", "stack": "nothing", "token": "2"},
    ],
)
def test_every_address_opens(drawn, view):
    test = app(text=TEXT, **view)
    assert not test.exception and not test.error


@pytest.mark.parametrize(
    "view, sentence",
    [
        ({"instead": "The people"}, "7 and 4 positions"),
        ({"instead": TEXT}, "hardly anything"),
        ({"answer": "people", "against": "people", "instead": OTHER}, "the same"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(drawn, view, sentence):
    test = app(text=TEXT, **view)
    assert not test.exception and not test.error
    assert len(test.info) == 1 and sentence in test.info[0].value
    assert "circuit-wired" in drawn  # the rest of the page stands


def test_the_code_that_is_shown_runs(drawn, capsys):
    test = app(text=TEXT, instead=OTHER)
    code = test.code[0].value
    exec(code, {})
    assert "restore" in capsys.readouterr().out
