"""The Variants page without a browser: what it draws, computes, refuses and says."""

import json

import pytest
import torch
import torch.nn.functional as F
from streamlit.testing.v1 import AppTest

from headwise import capture
from headwise.assets import ASSETS
from headwise.interp.masks import Order
from headwise.models import available, load
from headwise.models.variants.beside import beside
from headwise.models.variants.longformer import Band
from headwise.models.variants.offered import OFFERED
from headwise.models.variants.orders import in_order, own_order
from headwise.pages._shared import canvas
from headwise.pages._variants.side import per_cent
from tests.browser.serving import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from headwise.pages.variants import variants
variants()
"""


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn last, by the component's key."""
    found = {}
    monkeypatch.setattr(canvas, "head", lambda matrix, *, key, **how: found.update({key: matrix}))
    return found


def app(**view) -> AppTest:
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT)), default_timeout=200)
    for name, value in view.items():
        test.query_params[name] = value
    return test.run()


def facts(test: AppTest) -> list[str]:
    assert not test.exception, test.exception
    return [h.proto.body for h in test.get("html") if "variant-facts" in h.proto.body and "<span" in h.proto.body]


def test_a_head_through_a_window_of_eight(drawn):
    test = app(layer="1", head="6", window="8", globals="0")
    cap = capture(load("tiny-decoder"), test.text_area[0].value or test.text_area[0].placeholder)
    found = beside(cap.find(1), 6, Band(window=8))
    left = facts(test)[1]
    for value, told in (
        (found.seen, "of the pairs"),
        (found.held, "of the head’s weight"),
        (found.error, "of its output"),
    ):
        assert f"{per_cent(value)} {told}</b>" in left
    assert (drawn["variant-picture-left"].values - found.call.weights(6)[0]).nan_to_num(0).abs().max() < 1e-6
    assert any("Causal() & Window(8, 0)" in code.value for code in test.code)


def test_a_slider_moves_the_picture_and_the_address(drawn):
    test = app(layer="1", head="6")
    before = drawn["variant-picture-left"].values.clone()
    next(s for s in test.slider if s.label == "Window").set_value(2).run()
    assert not test.exception
    assert drawn["variant-picture-left"].values.nan_to_num(0).ne(before.nan_to_num(0)).any()
    assert test.query_params["window"] in ("2", ["2"])
    assert test.query_params["head"] in ("6", ["6"])


def test_untouched_it_leaves_the_address_alone(drawn):
    assert not dict(app().query_params)


@pytest.mark.parametrize("model", ["tiny-encoder", "tiny-vit", "tiny-encoder-decoder", "tiny-attention-only"])
def test_other_kinds_of_models(model, drawn):
    test = app(model=model, right="fixed")
    assert not test.exception
    assert not test.error
    assert set(drawn) == {f"variant-picture-{side}" for side in ("full", "left", "right")}


def test_what_reads_from_left_to_right_is_refused_where_heads_look_both_ways(drawn):
    test = app(model="tiny-encoder", left="transformer-xl")
    assert [error.value for error in test.error] == [
        "Transformer-XL reads from left to right, and this head looks both ways."
    ]


@pytest.mark.parametrize(("text", "window"), [("a", "128"), ("The people", "0")])
def test_texts_shorter_than_what_is_asked(text, window, drawn):
    test = app(text=text, window=window, right="transformer-xl")
    assert not test.exception
    assert not test.error


def test_the_shown_code_runs(drawn):
    test = app(layer="1", head="6", left="sparse", right="transformer-xl", text="The people of the United States")
    code = next(c.value for c in test.code if "beside(" in c.value)
    found: dict = {}
    exec(code, found)
    assert f"<b>{per_cent(found['left'].error)} of its output</b>" in facts(test)[1]


@pytest.mark.parametrize("left", list(OFFERED))
def test_any_two_mechanisms_stand_beside_each_other(left, drawn):
    for right in OFFERED:
        test = app(left=left, right=right, text="The people of the United States")
        assert not test.exception
        assert not test.error
        labels = [slider.label for slider in test.slider]
        assert len(labels) == len(set(labels)), labels


def told(test: AppTest, name: str) -> str:
    (found,) = [h.proto.body for h in test.get("html") if f"data-testid='{name}'" in h.proto.body]
    return found


def test_xlnet_tells_a_text_in_ones_own_order(drawn):
    test = app(part="order", way="one’s own", order="3 0", asked="1", text="The people of the United States")
    assert not test.exception
    assert not test.error
    subject = load("tiny-xlnet")
    inputs = subject.encode("The people of the United States")
    z = own_order("3 0", len(inputs.axes["input"]))
    cap = capture(subject, in_order(inputs, z))
    for stream, own in (("content", True), ("query", False)):
        mask = Order(tuple(z), own=own).dense(len(z), len(z))
        assert torch.equal(drawn[f"variants-order-{stream}"].values.bool(), mask)
    text = told(test, "order-text")
    assert text.count("class='seen'") == 2  # 3 and 0 come before 1
    ids = inputs.kwargs["input_ids"][0]
    probability = float(cap.logits[0, 1].softmax(-1)[ids[1]])
    said = told(test, "order-said")
    assert f"number <b>3</b> of {len(z)}, from 2 tokens, <b>1</b> of which stand after it" in said
    assert f"itself <b>{probability:.1%}</b>".replace("%", " %") in said
    assert f"costs <b>{float(F.cross_entropy(cap.logits[0], ids)):.2f}</b> nats" in said


def test_an_order_that_is_none_is_one_sentence_and_nothing_is_lost(drawn):
    test = app(part="order", way="one’s own", order="3 3")
    assert ["named twice" in error.value for error in test.error] == [True]
    assert test.query_params["order"] in ("3 3", ["3 3"])


@pytest.mark.parametrize("model", ["tiny-xlnet", "tiny-vit", "tiny-encoder", "tiny-forecaster"])
def test_orders_whatever_model_is_chosen(model, drawn):
    test = app(model=model, part="order", way="shuffled", drawn="weights")
    assert not test.exception
    assert not test.error
    assert set(drawn) == {"variants-order-content", "variants-order-query"}


def test_what_was_trained_alike_is_told_as_it_was_measured(drawn):
    test = app(part="trained")
    assert not test.exception
    rows = json.loads((ASSETS / "variants.json").read_text("utf-8"))
    table = told(test, "trained")
    for name, row in rows.items():
        assert f"{row['loss']['512']:.3f}" in table
        assert f"{row['tokens_per_second']:,.0f}" in table
        assert (f"?model={name}'" in table) == (name in available())
