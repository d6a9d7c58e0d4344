"""The Compare page without a browser: what it lays side by side, shows and refuses for each kind of model."""

import pytest
from streamlit.testing.v1 import AppTest

from headwise import capture, edits, rerun
from headwise.interp.analysis.comparing.answer import answers_of
from headwise.interp.analysis.comparing.compare import compare
from headwise.models import load
from headwise.pages._shared import canvas as _canvas
from headwise.pages._shared import pictures
from headwise.pages._shared.input import FILES, default_text
from tests.browser.serving import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from headwise.pages.compare import compare
compare()
"""
TEXT = "The people of the United States"
OTHER = "The people of the old States"
PLAIN = {"text": TEXT, "beside": OTHER}


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn last, by the component's key: (what, how)."""
    found = {}

    def kept(what, *, key, **how):
        found[key] = (what, how)

    monkeypatch.setattr(pictures, "bars", kept)
    monkeypatch.setattr(_canvas, "numbers", kept)
    monkeypatch.setattr(_canvas, "head", kept)
    return found


def app(**view) -> AppTest:
    test = AppTest.from_string(SCRIPT.format(root=str(ROOT)), default_timeout=240)
    for name, value in view.items():
        test.query_params[name] = value
    return test.run()


def said(test: AppTest, part: str = "") -> str:
    assert not test.exception, test.exception
    return " ".join(h.proto.body for h in test.get("html") if part in h.proto.body)


def two(model="tiny-decoder", one=TEXT, other=OTHER):
    subject = load(model)
    return compare(capture(subject, one), capture(subject, other))


def test_two_texts_side_by_side(drawn):
    test = app(**PLAIN)
    assert not test.error and not test.info
    found = two()
    ranked, how = drawn["compare-ranked"]
    wanted = found.table.head(len(ranked))
    assert [line["value"] for line in ranked] == pytest.approx(wanted["divergence"].tolist(), abs=1e-6)
    assert [line["name"] for line in ranked] == [f"head {row.layer}·{row.head}" for row in wanted.itertuples()]
    first = found.table.iloc[0]
    place = ("decoder", int(first["layer"]), int(first["head"]))
    assert ranked[0]["go"] == {"layer": place[1], "head": place[2]} and how["base"].startswith("./?text=")
    matrix, _ = drawn["compare-map"]
    assert float(matrix.values[place[1], place[2]]) == pytest.approx(first["divergence"], abs=1e-6)
    rows = found.rows(*place)
    change = drawn["compare-head"][0].values
    assert change[:, : len(rows.keys)].tolist() == [
        pytest.approx(row, abs=1e-6) for row in (rows.other - rows.one)[:, : len(rows.keys)].tolist()
    ]
    answers = answers_of(found)
    bars = drawn["compare-says"][0]
    assert [bar["value"] for bar in bars] == pytest.approx(answers.table["change"].tolist()[: len(bars)], abs=1e-6)
    assert f"{answers.measured[1] - answers.measured[0]:+.2f}".replace("-", "−") in said(test, "Logit of")


def test_the_first_look_has_another_text_already(drawn):
    for text in (TEXT, "When Mary and John went to the store, John gave a drink to"):
        test = app(text=text)
        assert not test.error and not test.info and "compare-map" in drawn
        assert test.text_area(key="beside").value not in ("", text)


def test_a_text_that_is_longer_is_aligned(drawn):
    test = app(text=TEXT, beside="The people of the old United States")
    found = two(other="The people of the old United States")
    alone = found.alignments["input"].alone
    assert alone[0] == () and len(alone[1]) >= 1
    assert "only in the second" in said(test) and said(test, "beside").count(">–<") == len(alone[1])
    assert drawn["compare-head"][0].columns.labels[-1] == "elsewhere"


@pytest.mark.parametrize(
    "view", [{"layer": "2", "head": "3", "query": "4"}, {"drawn": "other", "layer": "2", "head": "3"}]
)
def test_the_address_chooses_the_head_and_the_side(drawn, view):
    app(**PLAIN, **view)
    rows = two().rows("decoder", 2, 3)
    matrix, how = drawn["compare-head"]
    wanted = rows.other if view.get("drawn") == "other" else rows.other - rows.one
    assert matrix.values[4, : len(rows.keys)].tolist() == pytest.approx(wanted[4, :-1].tolist(), abs=1e-6)
    if "query" in view:
        assert how["selected"] == {"axis": "query", "index": 4}


def test_before_and_after_fine_tuning(drawn):
    text = "A dull, lifeless mess that wastes the talent of its actors."
    test = app(model="tiny-encoder", by="model", compare="tiny-classifier", text=text)
    found = compare(*(capture(load(name), text) for name in ("tiny-encoder", "tiny-classifier")))
    ranked = drawn["compare-ranked"][0]
    assert ranked[0]["value"] == pytest.approx(found.table["divergence"].iloc[0], abs=1e-6)
    assert found.kind == "models" and "tiny-encoder" in said(test, "names") and "tiny-classifier" in said(test, "names")
    (info,) = test.info  # tokens on one side, classes on the other: one sentence, and all else is there
    assert "cannot be subtracted" in info.value and not test.error


def test_models_of_two_shapes_are_matched_by_pattern(drawn):
    test = app(model="tiny-decoder", by="model", compare="tiny-attention-only", text=TEXT)
    assert not test.error and "differ in shape" in said(test, "note")
    assert " → " in drawn["compare-ranked"][0][0]["name"]


def test_most_alike(drawn):
    app(model="tiny-encoder", by="model", compare="tiny-classifier", match="pattern")
    name = drawn["compare-ranked"][0][0]["name"]
    both = (capture(load(name), default_text("encoder")) for name in ("tiny-encoder", "tiny-classifier"))
    found = compare(*both, "pattern")
    first = found.table.iloc[0]
    assert name.startswith(f"head {first['layer']}·{first['head']}")


def test_before_and_after_an_edit(drawn):
    test = app(text=TEXT, by="edit", edits="zero-0-3")
    assert not test.error and not test.info and "Edited" in said(test, "edited")
    cap = capture(load("tiny-decoder"), TEXT)
    found = compare(cap, rerun(cap, [edits.Zero(edits.HeadOutput(0, 3))]))
    assert found.kind == "edit"
    matrix, _ = drawn["compare-map"]
    assert matrix.values[0].abs().max() == 0  # what stands before the edit is as it was
    first = found.table.iloc[0]
    assert float(matrix.values[int(first["layer"]), int(first["head"])]) == pytest.approx(first["divergence"], abs=1e-6)


def test_a_removed_head_of_the_last_layer_moves_no_pattern(drawn):
    test = app(text=TEXT, by="edit", edits="zero-3-3")
    assert "No head looks elsewhere" in said(test, "note") and not test.error


def test_nothing_is_edited_yet(drawn):
    test = app(text=TEXT, by="edit")
    (info,) = test.info
    assert "Nothing is changed yet" in info.value and not drawn and not test.error
    test.selectbox(key="removed").set_value(("decoder", 1, 2)).run()
    assert not test.info and drawn["compare-map"][0].values[2:].max() > 0


@pytest.mark.parametrize(
    "model", ["tiny-encoder", "tiny-encoder-decoder", "tiny-vit", "tiny-classifier", "tiny-attention-only"]
)
def test_every_kind_of_model(drawn, model):
    test = app(model=model)
    assert not test.exception and not test.error and not test.info
    assert drawn["compare-ranked"][0][0]["value"] > 0 and "compare-says" in drawn
    assert "look" in said(test, "groups") or "filled" in said(test, "groups")


@pytest.mark.parametrize("kind", ["mirrored", "A handwritten three"])
def test_pictures(drawn, kind):
    test = app(model="tiny-vit", beside_file=kind)
    assert not test.error and "patches differ" in said(test, "note")
    assert drawn["compare-ranked"][0][0]["value"] > 0.01


@pytest.mark.parametrize("model", ["minilm-l6", "dinov2-small"])
def test_a_model_without_an_answer_is_compared_all_the_same(drawn, model, request):
    request.getfixturevalue({"minilm-l6": "minilm_folder", "dinov2-small": "dinov2_folder"}[model])
    test = app(model=model)
    (info,) = test.info
    assert info.value.startswith(f"{model} gives no answer") and not test.error
    assert drawn["compare-ranked"][0][0]["value"] > 0 and "compare-says" not in drawn


def test_models_that_share_nothing_are_refused_in_one_sentence(drawn):
    test = app(model="tiny-decoder", by="model", compare="tiny-vit", text=TEXT)
    (error,) = test.error
    assert error.value.startswith("tiny-decoder reads a text and tiny-vit a picture") and not drawn


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/folder"])
def test_a_model_that_is_not_there_is_one_sentence(drawn, name):
    test = app(by="model", compare=name, text=TEXT)
    assert len(test.error) == 1 and not test.exception and not drawn


def test_an_answer_that_is_its_own_alternative_is_one_sentence(drawn):
    test = app(**PLAIN, answer="America", against="America")
    assert not test.exception
    assert len(test.error) == 1 and "compare-map" in drawn  # nothing else is lost


@pytest.mark.parametrize(
    "view",
    [
        {"layer": "99", "head": "99", "query": "99"},
        {"by": "nonsense"},
        {"groups": "3"},
        {"match": "nonsense"},
        {"stack": "cross"},
        {"edits": "zero-99-99", "by": "edit"},
    ],
)
def test_every_address_opens(drawn, view):
    test = app(**PLAIN, **view)
    assert not test.exception and not test.error


def test_hostile_words_are_escaped(drawn):
    evil = "<img src=x onerror=alert(1)> $x$ :red[y]"
    test = app(text=f"The people {evil}", beside=f"The men {evil}", answer="<", against=">")
    assert "<img" not in said(test)


@pytest.mark.parametrize(
    "view",
    [
        PLAIN,
        {"text": TEXT, "by": "edit", "edits": "zero-0-3"},
        {"model": "tiny-encoder", "by": "model", "compare": "tiny-classifier"},
        {"model": "tiny-vit", "beside_file": "mirrored"},
        {"model": "tiny-vit"},
    ],
)
def test_the_code_makes_the_view(drawn, view):
    test = app(**view)
    made = {}
    exec(test.code[-1].value, made)  # what the page tells people to run
    ranked = drawn["compare-ranked"][0]
    assert made["found"].table["divergence"].head(len(ranked)).tolist() == pytest.approx(
        [line["value"] for line in ranked], abs=1e-6
    )


@pytest.mark.skipif(len(FILES["audio"]) < 2, reason="recordings of speech come with apt-get install alsa-utils")
def test_a_recording_is_held_against_another_one(drawn, whisper_folder):
    test = app(model="whisper-tiny-en")
    assert not test.exception and not test.error
    (field,) = [box for box in test.selectbox if box.label == "The other one"]
    (shown,) = [caption.value for caption in test.caption if caption.value in FILES["audio"]]
    name = shown.lower()
    assert field.options and not [option for option in field.options if name in option.lower()]
    assert "No head looks elsewhere" not in said(test, "note")
