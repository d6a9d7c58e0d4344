"""The Patching page without a browser: what it asks, shows and refuses for each kind of model."""

import re

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from headwise import capture
from headwise.interp.analysis.patching import closeness, corrupted, corruptions, patch, path_patch
from headwise.interp.analysis.targets import target
from headwise.interp.drawing.streams import FEW
from headwise.interp.run.sites import HeadOutput, Value
from headwise.models import load
from headwise.pages._shared import pictures
from tests.browser.serving import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from headwise.pages.patching import patching
patching()
"""
CLEAN, CORRUPTED = "The Congress of the United", "The people of the United"
PLAIN = {"text": CLEAN, "instead": CORRUPTED}
MAPS = {"residual": "residual before", "attention": "attention", "mlp": "mlp", "heads": "head", "patterns": "pattern"}


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn last, by the component's key: (what, how)."""
    found = {}
    monkeypatch.setattr(pictures, "cells", lambda what, *, key, **how: found.update({key: (what, how)}))
    return found


def app(**view) -> AppTest:
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT)), default_timeout=240)
    for name, value in view.items():
        test.query_params[name] = value
    return test.run()


def axis_of(text: str):
    return capture(load("tiny-decoder"), text).axes["input"]


def said(test: AppTest, part: str) -> str:
    assert not test.exception, test.exception
    return " ".join(h.proto.body for h in test.get("html") if part in h.proto.body)


@pytest.fixture(scope="module")
def two():
    """The page's two runs on PLAIN, and its question: the token the model gives, rather than the next best."""
    cap = capture(load("tiny-decoder"), CLEAN)
    best = cap.logits[0, -1].topk(2).indices.tolist()
    return cap, corrupted(cap, CORRUPTED), target(cap, *best)


def drawn_as(cells, table, kind: str) -> None:
    """The map shows the share of each row of the table: the last block or layer on top, from the first position at
    which anything happens."""
    part = table[table.kind == MAPS[kind]]
    whole = part.restored.to_numpy().reshape(len(cells.rows), -1)[::-1]
    first = cells.first or 0
    assert (np.abs(whole[:, :first]) < 1e-6).all() and first <= 3  # the inputs differ at position 3
    wanted = whole[:, first:]
    assert cells.values == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    seen = np.abs(wanted) > 0.02
    assert (np.sign(cells.shades - 0.5) == np.sign(wanted))[seen].all()  # 0.5 is the middle of the scale


@pytest.mark.parametrize("how", ["denoising", "noising"])
def test_five_maps_are_those_of_the_library(drawn, two, how):
    test = app(**PLAIN, direction=how)
    assert not test.error and not test.info
    exact, rough = (patch(*two[:2], [*MAPS], two[2], how=how, approximate=one) for one in (False, True))
    for kind, name in MAPS.items():
        cells, _ = drawn[f"patching-{kind}"]
        drawn_as(cells, exact, kind)
        near = closeness(*(table[table.kind == name] for table in (exact, rough)))
        assert f"r = {near.correlation:.2f}".replace("-", "−") in said(test, "Estimates:")
    residual = drawn["patching-residual"][0]
    assert residual.columns == two[0].axes["input"].labels[residual.first :]
    assert drawn["patching-heads"][0].columns == tuple(map(str, range(8)))
    assert drawn["patching-heads"][0].rows == ("layer 3", "layer 2", "layer 1", "layer 0")
    assert drawn["patching-heads"][0].quantity == {"denoising": "share restored", "noising": "share broken"}[how]
    ends = [f"{exact.attrs[name]:+.2f}".replace("-", "−") for name in ("clean", "corrupted")]
    assert f"{ends[0]} in the clean run, {ends[1]} in the corrupted one" in said(test, "in the clean run")


@pytest.mark.parametrize("shown", ["estimated", "error"])
def test_estimates_stand_beside(drawn, two, shown):
    app(**PLAIN, shown=shown)
    exact, rough = (patch(*two[:2], [*MAPS], two[2], approximate=one) for one in (False, True))
    table = rough.copy()
    if shown == "error":
        table["restored"] = rough.restored - exact.restored
    for kind in MAPS:
        drawn_as(drawn[f"patching-{kind}"][0], table, kind)


def test_the_inputs_stand_above_each_other(drawn):
    test = app(**PLAIN)
    shown = said(test, "data-testid='prompts'")
    marked = [re.findall(rf"<span class='{side} differs'[^>]*>(.*?)</span>", shown) for side in ("clean", "corrupted")]
    assert marked == [["·Congress"], ["·people"]]
    assert "1 of 7 tokens differs: Congress (3) → people (3)." in said(test, "differs")


def test_inputs_of_different_length_are_aligned_and_patterns_say_why_not(drawn):
    test = app(text=CLEAN, instead="The great people of the United")
    assert not test.error and not test.info
    shown = said(test, "data-testid='prompts'")
    own, other = len(axis_of(CLEAN)), len(axis_of("The great people of the United"))
    assert shown.count("clean: no partner") == other - own > 0 and "without a partner" in said(test, "note")
    assert "patching-residual" in drawn and "patching-heads" in drawn and "patching-patterns" not in drawn
    assert "inputs of one length" in said(test, "note")


def test_many_blocks_are_all_shown_and_nothing_offers_fewer(drawn, smollm2_folder):
    test = app(model="smollm2-135m", text="When Mary and John went out, John gave it to", answer="Mary", against="John")
    assert not test.error and not test.info
    cells, how = drawn["patching-residual"]
    assert len(cells.rows) == 30 and how["window"].states <= FEW


def test_proposals_are_buttons_and_each_is_another_pair(drawn):
    text = "The President of the United States met the Congress and the President said to the"
    test = app(text=text)
    cap = capture(load("tiny-decoder"), text)
    kinds = [one.kind for one in corruptions(cap)]
    assert kinds[0] == "name again"
    buttons = {b.key: b for b in test.button if (b.key or "").startswith("corruption-")}
    assert [*buttons] == [f"corruption-{kind}" for kind in kinds]
    first = drawn["patching-heads"][0].values
    buttons["corruption-names"].click()
    test.run()
    assert "change places" in said(test, "note") and not np.allclose(drawn["patching-heads"][0].values, first)
    assert test.query_params["corruption"] in ("names", ["names"])


def test_paths_to_the_answer_and_to_one_head(drawn, two):
    clean, other, aim = two
    heads = [HeadOutput(layer, head, "decoder") for layer in range(4) for head in range(8)]
    app(**PLAIN)
    wanted = path_patch(clean, other, heads, ["answer"], aim, how="denoising")
    shares = wanted.restored.to_numpy().reshape(4, 8)[::-1]
    assert drawn["patching-paths"][0].values == pytest.approx(shares, rel=1e-4, abs=1e-6)
    test = app(**PLAIN, receiver="decoder:3:5", receives="value")
    wanted = path_patch(clean, other, heads[:24], [Value(3, 5, "decoder")], aim, how="denoising")
    found = drawn["patching-paths"][0].values[-3:]
    assert found == pytest.approx(wanted.restored.to_numpy().reshape(3, 8)[::-1], rel=1e-4, abs=1e-6)
    assert "the value of head 3.5" in said(test, "note")


def test_a_cell_leads_to_its_head(drawn):
    app(**PLAIN)
    for kind in ("heads", "patterns", "paths"):
        leads = drawn[f"patching-{kind}"][1]["leads"]
        assert leads.base.startswith("./?text=The+Congress") and "instead" not in leads.base
        named = leads.heads[1][6]
        assert (named["layer"], named["head"]) == (2, 6)


@pytest.mark.parametrize(
    "view",
    [
        {"direction": "x", "shown": "y", "receives": "z"},
        {"spot": "patching-heads:9:99"},
        {"spot": "patching-residual:0:3"},
        {"spot": "x:y:z"},
        {"spot": "patching-attention:::"},
        {"placed": "99"},
        {"receiver": "decoder:99:0"},
        {"receiver": "::", "receives": "key"},
        {"receiver": "decoder:0:0", "receives": "key"},
        {"corruption": "nonsense"},
        {"against": "∅"},
    ],
)
def test_every_address_opens(drawn, view):
    test = app(**PLAIN, **view)
    assert not test.exception and not test.error and "patching-heads" in drawn


def test_a_chosen_cell_is_said_in_figures(drawn, two):
    test = app(**PLAIN, spot="patching-residual:3:3")  # the fourth row from the top, the first block
    assert drawn["patching-residual"][1]["selected"] == (3, 3)
    table = patch(*two[:2], "residual", two[2])
    row = table[(table.block == 0) & (table.position == 3)].iloc[0]
    assert f"{row.effect:+.2f}, {row.restored:.0%}".replace("-", "−") in said(
        test, "stream before block 0 at ·Congress"
    )


@pytest.mark.parametrize(
    "model, stacks",
    [
        ("tiny-encoder", ["-encoder"]),
        ("tiny-encoder-decoder", ["", "-encoder"]),
        ("tiny-vit", ["-encoder"]),
        ("tiny-classifier", ["-encoder"]),
        ("tiny-attention-only", [""]),
        ("tiny-xlnet", ["-content", "-query"]),
    ],
)
def test_every_kind_of_model(drawn, model, stacks):
    test = app(model=model)
    assert not test.exception and not test.error and not test.info
    assert {key for key in drawn if "residual" in key} == {f"patching-residual{end}" for end in stacks}
    assert "patching-heads" in drawn and "patching-paths" in drawn
    if model == "tiny-attention-only":
        assert "patching-mlp" not in drawn and "no mlp" in said(test, "note").lower()


@pytest.mark.parametrize("model", ["minilm-l6", "dinov2-small"])
def test_a_model_without_an_answer_says_so(drawn, model, request):
    request.getfixturevalue({"minilm-l6": "minilm_folder", "dinov2-small": "dinov2_folder"}[model])
    test = app(model=model)
    (info,) = test.info
    assert "gives no answer" in info.value and not drawn and not test.error


def test_the_same_text_twice_is_one_sentence(drawn):
    test = app(text=CLEAN, instead=CLEAN)
    (told,) = (*test.error, *test.info)
    assert "no difference to trace" in told.value and not drawn


def test_an_answer_that_is_its_own_alternative_is_one_sentence(drawn):
    test = app(**PLAIN, answer=" the", against=" the")
    assert not test.exception and not drawn
    assert "are the same" in " ".join(each.value for each in (*test.error, *test.info))


def test_texts_with_nothing_in_common_are_paired_from_the_end(drawn):
    test = app(text=CLEAN, instead="?!")
    assert not test.error and not test.info and "patching-heads" in drawn
    assert "2 of 2 tokens differ" in said(test, "note") and "5 tokens of the clean input without a partner" in said(
        test, "note"
    )


def test_hostile_words_are_escaped(drawn):
    evil = "<img src=x onerror=alert(1)> $x$ :red[y]"
    test = app(text=f"The people {evil}", instead=f"The Congress {evil}")
    assert not test.exception
    assert "<img" not in said(test, "prompts") + said(test, "note") + said(test, "question")


def test_what_was_cancelled_is_not_begun_again_until_asked(drawn, two):
    text = "The Congress of the States"  # of which nothing is on the shelf
    test = app(text=text, instead="The people of the States", measured="1")
    cap = capture(load("tiny-decoder"), text)
    aim = target(cap, *cap.logits[0, -1].topk(2).indices.tolist())
    pair = (("tiny-decoder", "cpu", "float32", text, False, False), ("own", "The people of the States"))
    test.session_state["halted"] = frozenset({("patched", (pair, aim, "denoising"))})
    test.run()
    rough = patch(cap, corrupted(cap, "The people of the States"), [*MAPS], aim, approximate=True)
    for kind in MAPS:  # nothing is lost: the estimates stay
        drawn_as(drawn[f"patching-{kind}"][0], rough, kind)
    next(button for button in test.button if button.label == "Go on with patching").click().run()
    assert not test.session_state["halted"] and "Estimates:" in said(test, "note")


@pytest.mark.parametrize("view", [{}, {"receiver": "decoder:3:5", "receives": "key", "direction": "noising"}])
def test_the_code_makes_the_view(drawn, two, view):
    test = app(**PLAIN, **view)
    code = next(c.value for c in test.code)
    made = {}
    exec(code, made)  # what the page tells people to run
    drawn_as(drawn["patching-heads"][0], made["exact"], "heads")
    assert made["aim"] == two[2]


def test_the_code_of_a_proposal_makes_the_view(drawn):
    test = app(text=CLEAN, corruption="likely word")
    made = {}
    exec(next(c.value for c in test.code), made)
    drawn_as(drawn["patching-heads"][0], made["exact"], "heads")
