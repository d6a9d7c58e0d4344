"""The Attribution page without a browser: what it asks, shows and refuses for each kind of model."""

import pytest
from streamlit.testing.v1 import AppTest

from headwise import capture
from headwise.interp.analysis.attribution import METHODS, explain
from headwise.interp.analysis.attribution.faithfulness import agreement, faithfulness, random_orders
from headwise.interp.analysis.attribution.features import features
from headwise.interp.analysis.targets import target
from headwise.models import load
from headwise.pages._attribution import pictures
from headwise.pages._shared import pictures as shared
from tests.browser.serving import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from headwise.pages.attribution import attribution
attribution()
"""
REVIEW = "A dull, lifeless mess that wastes the talent of its actors."
PLAIN = {"model": "tiny-classifier", "text": REVIEW}


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn last, by the component's key: (what, how)."""
    found = {}
    monkeypatch.setattr(pictures, "maps", lambda sides, *, key: found.update({key: (sides, {})}))
    monkeypatch.setattr(
        pictures, "curves", lambda charts, names, *, key, of="": found.update({key: (charts, {"names": names})})
    )
    monkeypatch.setattr(shared, "bars", lambda what, *, key, **how: found.update({key: (what, how)}))
    return found


def app(**view) -> AppTest:
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT)), default_timeout=240)
    for name, value in view.items():
        test.query_params[name] = value
    return test.run()


def said(test: AppTest, part: str) -> str:
    assert not test.exception, test.exception
    return " ".join(h.proto.body for h in test.get("html") if part in h.proto.body)


def asked():
    """The page's question on PLAIN: the class the model gives, rather than the other."""
    cap = capture(load("tiny-classifier"), REVIEW)
    return cap, target(cap, 0, 1)


def test_two_methods_side_by_side_each_tested(drawn):
    test = app(**PLAIN)
    assert not test.error and not test.info
    cap, aim = asked()
    sides, _ = drawn["attribution-maps"]
    assert [side.name for side in sides] == ["AttnLRP", "attention rollout"]
    wanted = [explain(cap, side.name, aim) for side in sides]
    for side, own in zip(sides, wanted, strict=True):
        assert side.found.scores.tolist() == pytest.approx(own.scores.tolist(), rel=1e-4, abs=1e-6)
    (take, put), how = drawn["attribution-curves"]
    assert list(how["names"]) == ["AttnLRP", "attention rollout"]
    floor = random_orders(features(cap), aim)
    for place, own in enumerate(wanted):
        tested = faithfulness(own, randoms=floor)
        assert take.lines[place] == pytest.approx(tested.deletion.values.tolist(), abs=1e-5)
        assert put.lines[place] == pytest.approx(tested.insertion.values.tolist(), abs=1e-5)
        assert tested.sentence.replace("“", "") in said(test, "note").replace("“", "")
    assert f"{agreement(*wanted).correlation:.2f}" in said(test, "verdict").replace("−", "-")
    assert "elieve" in said(test, "verdict") and "comprehensiveness" in said(test, "figures")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_drawn_or_says_why_not(drawn, method):
    test = app(**PLAIN, method=method, compared="saliency")
    assert not test.error and drawn["attribution-maps"][0][0].found.method == method
    assert METHODS[method].paper[0].split(",")[0].split("&")[0].strip() in said(test, "method")
    assert METHODS[method].limits.split("'")[0] in said(test, "about")


@pytest.mark.parametrize("model", ["tiny-decoder", "tiny-encoder", "tiny-encoder-decoder", "tiny-vit",
                                   "tiny-attention-only"])  # fmt: skip
def test_every_kind_of_model(drawn, model):
    test = app(model=model)
    assert not test.exception and not test.error and not test.info
    assert "attribution-curves" in drawn and all(side.found for side in drawn["attribution-maps"][0])
    assert "rank correlation" in said(test, "verdict")


def test_a_method_that_does_not_apply_says_why_and_the_other_stays(drawn):
    test = app(model="tiny-encoder-decoder", compared="attention rollout")
    one, other = drawn["attribution-maps"][0]
    assert one.found is not None and other.found is None
    assert "does not apply to tiny-encoder-decoder" in other.why and "one stack" in other.why
    assert not test.error and len(drawn["attribution-curves"][0][0].lines) == 2
    assert "can be believed here" in said(test, "verdict") or "Do not believe" in said(test, "verdict")


def test_neither_applies(drawn):
    test = app(model="tiny-encoder-decoder", method="attention flow", compared="attention rollout")
    (info,) = test.info
    assert "Attention flow does not apply" in info.value and "Attention rollout does not apply" in info.value
    assert not drawn and not test.error


@pytest.mark.parametrize(
    "view",
    [
        {"baseline": "mean"},
        {"baseline": "blur"},
        {"method": "nonsense", "compared": "also"},
        {"method": "saliency", "compared": "saliency"},
        {"against": "∅"},
        {"answer": "favourable"},
    ],
)
def test_every_address_opens(drawn, view):
    test = app(**PLAIN, **view)
    assert not test.exception and not test.error and "attribution-maps" in drawn


def test_another_baseline_is_another_test(drawn):
    app(**PLAIN, baseline="mean")
    cap, aim = asked()
    tested = faithfulness(explain(cap, "AttnLRP", aim, baseline="mean"), baseline="mean")
    assert drawn["attribution-curves"][0][0].lines[0] == pytest.approx(tested.deletion.values.tolist(), abs=1e-5)


def test_the_sanity_check_at_a_click(drawn):
    test = app(**PLAIN)
    assert "attribution-sanity" not in drawn
    next(toggle for toggle in test.toggle if toggle.label == "Sanity check").set_value(True).run()
    (chart,), how = drawn["attribution-sanity"]
    assert how["names"] == ["AttnLRP", "attention rollout"] and len(chart.places) == 7
    assert chart.lines[1][1] == pytest.approx(1) and "does not know the answer" in said(test, "note")


def test_all_methods_ranked(drawn):
    test = app(**PLAIN, tested="1")
    lines, _ = drawn["attribution-ranking"]
    assert {line["name"] for line in lines} == set(METHODS)
    values = [line["value"] for line in lines]
    assert values == sorted(values, reverse=True)
    assert f"of {len(METHODS)} beat random orders" in said(test, "note")


def test_an_answer_that_is_its_own_alternative_is_one_sentence(drawn):
    test = app(**PLAIN, answer="favourable", against="favourable")
    assert not test.exception and not drawn
    assert "are the same" in " ".join(each.value for each in (*test.error, *test.info))


@pytest.mark.parametrize("model", ["minilm-l6", "dinov2-small"])
def test_a_model_without_an_answer_says_so(drawn, model, request):
    request.getfixturevalue({"minilm-l6": "minilm_folder", "dinov2-small": "dinov2_folder"}[model])
    test = app(model=model)
    (info,) = test.info
    assert "gives no answer" in info.value and not drawn and not test.error


def test_what_was_cancelled_is_not_begun_again_until_asked(drawn):
    text = "Some words that nobody has asked about."
    test = app(model="tiny-classifier", text=text)
    cap = capture(load("tiny-classifier"), text)
    best = target(cap, *cap.logits[0].topk(2).indices.tolist())
    key = (("tiny-classifier", "cpu", "float32", text, False, False), best, "AttnLRP", "zero")
    test.session_state["halted"] = frozenset({("attributions", key)})
    test.run()
    one, other = drawn["attribution-maps"][0]
    assert one.found is None and "was cancelled" in one.why and other.found is not None  # nothing else is lost
    next(button for button in test.button if button.label == "Go on with AttnLRP").click().run()
    assert not test.session_state["halted"] and all(side.found for side in drawn["attribution-maps"][0])


def test_hostile_words_are_escaped(drawn):
    evil = "<img src=x onerror=alert(1)> $x$ :red[y]"
    test = app(text=f"The people {evil}", answer="<", against=">")
    assert not test.exception
    assert "<img" not in said(test, "verdict") + said(test, "note") + said(test, "question")


def test_the_code_makes_the_view(drawn):
    test = app(**PLAIN, checked="1")
    code = next(c.value for c in test.code)
    made = {}
    exec(code, made)  # what the page tells people to run
    assert made["other"].method == "attention rollout" and made["aim"].against == 1
    sides, _ = drawn["attribution-maps"]
    assert made["one"].scores.tolist() == pytest.approx(sides[0].found.scores.tolist(), rel=1e-4, abs=1e-6)
    assert made["tested"].method == "attention rollout"
