"""Attributions drawn: text as it was written, shades around zero, figures that hold what they should, and words that
follow from the figures."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from headwise import capture, load
from headwise.interp.analysis.attribution import explain
from headwise.interp.analysis.attribution.faithfulness import Agreement, Faithfulness, Orders
from headwise.interp.analysis.attribution.sanity import Sanity
from headwise.interp.analysis.targets import Target, target
from headwise.interp.drawing import attributions, faithful
from headwise.interp.drawing.files import maps_figure
from headwise.interp.drawing.paper.colour import diverging
from headwise.models import read_image
from tests.browser.serving import ROOT

TEXT = "A dull, lifeless mess."


@pytest.fixture(scope="module")
def found():
    cap = capture(load("tiny-classifier"), TEXT)
    return explain(cap, "input x gradient", target(cap))


def test_the_text_is_as_it_was_written(found):
    (block,) = attributions.blocks(found.features)
    pieces = zip(block.before[1:-1], block.texts[1:-1], strict=True)  # between [CLS] and [SEP]
    assert "".join(before + text for before, text in pieces).strip() == TEXT
    assert block.texts[0] == "[CLS]" and (block.kind, block.first) == ("text", 0)


def test_spaces_stand_before_tokens_and_not_in_them():
    cap = capture(load("tiny-decoder"), "The people of the United States")
    (block,) = attributions.blocks(explain(cap, "saliency", target(cap)).features)
    assert "".join(b + t for b, t in zip(block.before, block.texts, strict=True)) == "The people of the United States"
    assert not any(text[:1].isspace() for text in block.texts)


def test_an_encoder_decoder_is_two_blocks():
    cap = capture(load("tiny-encoder-decoder"), "knight")
    source, aim = attributions.blocks(explain(cap, "saliency", target(cap)).features)
    assert (source.name, aim.name, aim.first) == ("source", "target", len(source.texts))


def test_shades_and_places(found):
    assert attributions.shades([2.0, -1.0, 0.0, 9.0], [False, False, False, True], True) == [255, 64, 128, None]
    assert attributions.shades([2.0, 1.0, 0.0], [False] * 3, False) == [255, 128, 0]
    shown = attributions.shown(found)
    order = [unit for _, unit in sorted((place, unit) for unit, place in enumerate(shown.places) if place is not None)]
    assert found.scores[order].tolist() == sorted(found.scores[~found.features.fixed].tolist(), reverse=True)
    assert shown.places[0] is None and shown.shades[0] is None  # [CLS]


def test_scores_in_few_letters():
    assert [attributions.score(value) for value in (0.4179, -1.26, 0.0, 12.3)] == ["+0.42", "−1.3", "0", "+12"]
    assert attributions.score(0.25, signed=False) == "0.25"


def test_the_table_has_a_row_a_unit(found):
    table = attributions.table([found])
    assert table["unit"].tolist() == list(found.features.labels)
    assert table[found.method].tolist() == found.scores.tolist()
    best = table.loc[table[f"rank by {found.method}"] == 1]
    assert best[found.method].item() == float(found.scores[~found.features.fixed].max())


def test_figures_of_a_text(found):
    drawn = maps_figure([found, replace(found, method="again")], "svg", title="what <it> rests on").decode()
    texts = [re.sub("<[^>]+>", "", text) for text in re.findall(r"<text[^>]*>(.*?)</text>", drawn)]
    assert texts.count("dull") == 2 and "again" in texts and "<it>" not in drawn
    picture = Image.open(io.BytesIO(maps_figure([found], "png", theme="dark")))
    assert picture.width == 2 * 680 and picture.info["headwise"]


def test_the_strongest_patch_has_the_scales_end():
    """Beside the strokes, where the picture is black and in light colours leaves the colour as it is."""
    cap = capture(load("tiny-vit"), read_image(ROOT / "assets/examples/seven.png"))
    found = explain(cap, "saliency", target(cap))
    scores = torch.zeros(found.features.count)
    scores[0] = 1.0  # the corner, where nothing is written
    one = replace(found, scores=scores, signed=True, method="corner")
    pixels = np.asarray(Image.open(io.BytesIO(maps_figure([one], "png"))).convert("RGB")).reshape(-1, 3)
    assert (pixels == diverging("light")[255]).all(1).sum() > 5000


def test_a_recording_has_bars():
    from headwise.interp.attention.axes import Axis, Sound
    from headwise.interp.drawing.paper import maps
    from headwise.interp.drawing.paper.pens import Print, Svg

    sound = Sound(np.random.default_rng(0).standard_normal((8, 40)).astype(np.float32), 0.01, 0.1, 0.4)
    axis = Axis(("0.00 s", "0.10 s", "0.20 s", "0.30 s", "after the end"), sound=sound)
    block = attributions.Block("sound", "input", 0, axis.labels, ("",) * 5, axis)
    shown = attributions.Shown("x", True, [1, -1, 0, 0.5, 0], [""] * 5, [255, 0, 128, 191, None], [0, 3, 2, 1, None],
                               "against", "for")  # fmt: skip
    drawn = maps.draw([shown], [block], "", Print(Svg)).decode()
    assert drawn.count("<image") == 1 and ">0.40 s<" in drawn


# -- words ------------------------------------------------------------------------------------------------------------
def made(gain: float, method="one", needed=0.0, spread=0.1) -> Faithfulness:
    """Curves that lie 0.5 ± gain / 2 between their ends: they come to a little less than that gain, 0.95 of it."""
    counts = torch.arange(11)
    randoms = torch.tensor([-spread, spread] * 10)[:, None]

    def orders(gains, first):
        insertion = (0.5 + gains / 2).expand(-1, 11).clone()
        deletion = (0.5 - gains / 2).expand(-1, 11).clone()
        deletion[:, 1:6] -= first
        deletion[:, 0] = insertion[:, -1] = 1.0
        return Orders(counts, 10, deletion, insertion)

    own = orders(torch.tensor([[gain]]), needed)
    own.deletion[:, 6:-1] += 5 * needed / 4  # what is gained at first is lost later
    return Faithfulness(method, Target(0, names=("it", "")), "zero", own, orders(randoms, 0.0), 0.0)


@pytest.mark.parametrize(
    "one, other, says",
    [
        (made(0.6), made(0.3, "other"), "Believe one here."),
        (made(0.3), made(0.6, "other"), "Believe other here."),
        (made(0.6), made(0.0, "other"), "Believe one here, not other."),
        (made(0.6), made(0.58, "other"), "Either can be believed here."),
        (made(0.05), made(0.0, "other"), "Believe neither here."),
        (made(0.0), made(0.02, "other", needed=0.2), "Believe what other marks first, not the rest."),
    ],
)
def test_verdicts_follow_from_the_figures(one, other, says):
    told, why = faithful.verdict(one, other)
    assert told == says and "gain" in why


def test_one_alone():
    assert faithful.alone(made(0.6))[0] == "One can be believed here."
    assert faithful.alone(made(0.0))[0] == "Do not believe one here."


@pytest.mark.parametrize(
    "correlation, says",
    [(0.9, "They largely agree"), (0.31, "They partly agree"), (0.0, "They hardly agree"), (-0.5, "They contradict")],
)
def test_agreement_in_words(correlation, says):
    told = faithful.agreement_sentence(Agreement(correlation, 2, 5))
    assert told.startswith(says) and "2 of the 5" in told
    assert "same score" in faithful.agreement_sentence(Agreement(float("nan"), 2, 5))


def test_columns_mark_the_best_where_there_are_two():
    one, other, floor = faithful.columns([made(0.6), made(0.3, "other")])
    assert one.best[2] and not other.best[2] and one.figures[2] == "+0.57" and one.figures[3] == "20 of 20"
    assert floor.figures[2] == "0.00 ± 0.10" and not any(floor.best)
    assert not any(faithful.columns([made(0.6)])[0].best)
    same, too, _ = faithful.columns([made(0.6), made(0.6001, "other")])  # as far as is told, neither is better
    assert same.figures == too.figures and not any((*same.best, *too.best))


def test_charts_say_what_they_draw():
    chart = faithful.curve("deletion", [made(0.6), None])
    assert chart.lines[1] is None and chart.counts == list(range(11)) and len(chart.said) == 11
    assert chart.said[2] == "20% taken away: 20%; random 50%" and chart.rest == 2
    checked = [Sanity("a", ("as it is", "output", "embeddings"), (1.0, float("nan"), -0.4))]
    drawn = faithful.depths(checked)
    assert drawn.lines == [[1.0, 0.0, -0.4]] and drawn.low == -0.4 and "−0.40" in drawn.said[2]


def test_the_ranking_is_by_gain():
    lines, sentence = faithful.ranking([made(0.0), made(0.6, "other")], made(0.0).random)
    assert [line["name"] for line in lines] == ["other", "one"]
    assert sentence == "1 of 2 beat random orders, whose gain is 0.00 ± 0.10."
