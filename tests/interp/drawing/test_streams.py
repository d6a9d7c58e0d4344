"""Tables, lists and sentences of the residual stream, from numbers made by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from headwise import capture
from headwise.interp.analysis.targets import target
from headwise.interp.attention.axes import Axis
from headwise.interp.drawing import streams
from headwise.models import load

TEXT = "The people of the United"
CHANCES = np.array([[0.1, 0.2], [0.3, 0.05], [0.9, 0.25]])  # of token 7, three states, two positions
RANKS = np.array([[5, 2], [1, 9], [1, 2]])


def lens() -> SimpleNamespace:
    return SimpleNamespace(
        labels=("start", "0", "1"),
        axis=Axis(("a", " b")),
        best_labels=[["x", "y"], [" p", "q"], [" p", "<b>"]],
        translators=None,
        note="",
        kl=np.array([[2.0, 1.0], [0.5, 4.0], [0.0, 0.0]]),
        probability=lambda token: CHANCES,
        rank=lambda token: RANKS,
    )


def attribution(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["part", "block", "layer", "head", "stack", "name", "value"])


def heads(values: list[list[float]], stack: str = "decoder") -> list[tuple]:
    """Rows for a value a layer and head."""
    return [
        ("head", layer, layer, number, stack, f"{layer}.{number}", value)
        for layer, row in enumerate(values)
        for number, value in enumerate(row)
    ]


# -- which rows and positions -----------------------------------------------------------------------------------------
def test_a_shallow_and_short_table_is_whole():
    shown = streams.window(5, 20, (4, 19))
    assert shown.rows == (4, 3, 2, 1, 0) and (shown.first, shown.end) == (0, 20)
    assert shown.before is None and shown.after is None


def test_of_many_states_some_are_shown_the_ends_and_the_chosen_among_them():
    shown = streams.window(31, 14, (23, 13))
    assert shown.rows[0] == 30 and shown.rows[-1] == 0 and 23 in shown.rows
    assert list(shown.rows) == sorted(shown.rows, reverse=True) and len(shown.rows) <= streams.FEW + 1
    assert streams.window(31, 14, (23, 13), every=True).rows == tuple(range(30, -1, -1))


@pytest.mark.parametrize("position", [0, 57, 58, 153, 154, 249])
def test_positions_come_in_pages_that_meet(position):
    """250 positions in pages of 96 from the end: 0–57, 58–153, 154–249."""
    shown = streams.window(3, 250, (0, position))
    assert (shown.first, shown.end) == {0: (0, 58), 58: (58, 154), 154: (154, 250)}[
        0 if position < 58 else 58 if position < 154 else 154
    ]
    assert shown.first <= position < shown.end
    if shown.after is not None:
        assert streams.window(3, 250, (0, shown.after)).first == shown.end
    if shown.before is not None:
        assert streams.window(3, 250, (0, shown.before)).end == shown.first


# -- tables -----------------------------------------------------------------------------------------------------------
def test_lens_cells_stand_with_the_end_on_top():
    cells = streams.lens_cells(lens(), 7, " p", "chance", streams.window(3, 2, (2, 1)))
    assert cells.rows == ("after 1", "after 0", "start") and cells.places == (2, 1, 0)
    assert cells.texts == ((" p", "<b>"), (" p", "q"), ("x", "y"))
    assert np.array_equal(cells.values, CHANCES[::-1]) and np.array_equal(cells.shades, CHANCES[::-1])
    assert cells.quantity == "chance of ·p"


def test_lens_cells_by_rank_and_by_distance_to_the_end():
    shown = streams.window(3, 2, (2, 1))
    ranks = streams.lens_cells(lens(), 7, " p", "rank", shown)
    assert ranks.shades[0, 0] == 1 and ranks.shades[1, 1] == 0  # the best, and the worst of all
    assert ranks.shades[2, 1] == pytest.approx(1 - np.log(2) / np.log(9))
    ends = streams.lens_cells(lens(), 7, " p", "kl", shown)
    assert ends.shades[0].tolist() == [0, 0] and ends.shades[1, 1] == 1 and ends.high == "4"


def test_norm_cells_tell_where_the_stream_turns():
    table = pd.DataFrame(
        [
            ("start", 0, "a", 2.0, np.nan, np.nan),
            ("start", 1, " b", 3.0, np.nan, np.nan),
            ("0", 0, "a", 2000.0, 1999.0, 1.0),
            ("0", 1, " b", 4.0, 5.0, -0.5),
        ],
        columns=["after", "position", "token", "norm", "change", "cosine"],
    )
    shown = streams.window(2, 2, (1, 1))
    turn = streams.norm_cells(table, "cosine", shown)
    assert turn.texts == (("1.00", "−0.50"), ("", "")) and turn.shades[0].tolist() == [0, 1]
    assert np.isnan(turn.shades[1]).all()
    long = streams.norm_cells(table, "norm", shown)
    assert long.texts == (("2k", "4"), ("2", "3")) and long.shades[0, 0] == pytest.approx(1)
    assert streams.turning_sentence(table) == (
        "It turns most after 0 at ·b (1), to a cosine of −0.50; it is longest after 0 at a (0), 2k."
    )


def test_how_far_a_place_is_from_the_end_and_what_a_tuned_lens_gained():
    read = lens()
    assert streams.distance_sentence(read, 1, 1) == "4.00 nats from the end."
    read.translators, read.note = SimpleNamespace(plain=(3.0, 2.0), gained=(1.0, 0.5)), "it bends"
    assert streams.distance_sentence(read, 1, 1) == (
        "4.00 nats from the end. On texts kept apart: 0.50 after this block, through the logit lens 2.00. It bends."
    )
    assert streams.distance_sentence(read, 2, 0) == "0.00 nats from the end. It bends."


# -- parts ------------------------------------------------------------------------------------------------------------
def test_parts_add_up_to_the_same_and_keep_the_strongest():
    values = np.random.default_rng(0).normal(size=(6, 5))
    table = attribution(
        ("embedding", None, None, None, "", "embedding", 0.1),
        *heads(values.tolist()),
        *[("mlp", layer, layer, None, "", f"MLP {layer}", 0.2 * layer) for layer in range(6)],
        ("constant", None, None, None, "", "constant of norm", 0.05),
    )
    found = streams.parts(table)
    assert sum(part.value for part in found) == pytest.approx(table["value"].sum())
    shown = [part for part in found if part.head]
    strongest = np.sort(np.abs(values).ravel())[::-1][: streams.STRONGEST["head"]]
    assert sorted((abs(part.value) for part in shown), reverse=True) == pytest.approx(strongest.tolist())
    assert [part.value for part in shown] == sorted((part.value for part in shown), reverse=True)
    assert all(values[part.head[1], part.head[2]] == part.value for part in shown)
    names = [part.name for part in found]
    assert f"{30 - len(shown)} other heads" in names and "5 other MLPs" in names and "MLP 5" in names
    assert names[0] == "embedding" and names[-1] == "constant of norm"


def test_heads_of_two_stacks_are_told_apart():
    table = attribution(*heads([[1.0, 2.0]], "decoder"), *heads([[3.0, -4.0]], "cross"))
    assert [part.name for part in streams.parts(table)] == [
        *("cross head 0.0", "decoder head 0.1", "decoder head 0.0", "cross head 0.1"),
    ]
    cells, leads = streams.head_map(table)
    assert cells.columns == ("c0", "c1", "d0", "d1") and cells.values.tolist() == [[3, -4, 1, 2]]
    assert leads[0][1] == ("cross", 0, 1)


def test_the_map_has_the_last_layer_on_top_and_zero_in_the_middle():
    table = attribution(
        *heads([[1.0, 0.0], [-2.0, 0.5]]),
        ("mlp", 1, 1, None, "", "MLP 1", 0.25),
        ("constant", 1, 1, None, "", "constant", 9.0),
    )
    cells, leads = streams.head_map(table)
    assert cells.rows == ("layer 1", "layer 0") and cells.columns == ("0", "1", "MLP")
    assert cells.shades[0].tolist() == [0, 0.625, 0.5625] and cells.shades[1, :2].tolist() == [0.75, 0.5]
    assert np.isnan(cells.values[1, 2]) and leads == [
        [("decoder", 1, 0), ("decoder", 1, 1), None],
        [("decoder", 0, 0), ("decoder", 0, 1), None],
    ]


# -- sentences --------------------------------------------------------------------------------------------------------
def test_when_an_answer_leads_and_when_it_never_does():
    assert streams.when_sentence(lens(), 7, " p", 0) == "·p leads from “after 0” on."
    assert streams.when_sentence(lens(), 7, " p", 1) == "·p ends on rank 2."
    ranks = {"rank": lambda token: np.array([[1], [3], [2]]), "labels": ("start", "0", "1")}
    assert streams.when_sentence(SimpleNamespace(**ranks), 7, "p", 0) == "p ends on rank 2; its best was 1, start."


def test_who_carries_the_answer_and_who_works_against_it():
    table = attribution(*heads([[3.0, -1.5], [2.0, 0.5]]), ("mlp", 1, 1, None, "", "MLP 1", 9.0))
    assert streams.who_sentence(table, 13.0) == (
        "Heads 0.0, 1.0 and 1.1 put on +5.50; 0.1 works most against it, −1.50. All together: +13.00."
    )
    assert streams.who_sentence(table, -2.0).startswith("Heads 0.1, 1.1 and 1.0 put on +1.00; 0.0 works most against")
    assert streams.who_sentence(table[table["part"] == "mlp"], 9.0) == ""


# -- words ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text, meant", [("", None), (" Mary", " Mary"), ("#12", 12), ("12", "12"), ("#x", "#x")])
def test_what_a_person_types(text, meant):
    assert streams.wanted(text) == meant


def test_suggestions_are_what_the_model_says_and_can_be_asked_for():
    cap = capture(load("tiny-decoder"), TEXT)
    found = streams.suggestions(cap, count=20)
    chances = cap.logits[0, -1].softmax(-1)
    best = chances.topk(20)
    assert [s.token for s in found] == best.indices.tolist()
    assert [s.probability for s in found] == pytest.approx(best.values.tolist(), rel=1e-4)
    assert all(target(cap, streams.wanted(s.asked)).token == s.token for s in found)


def test_suggestions_of_a_classifier_are_its_classes():
    cap = capture(load("tiny-classifier"), "A moving film.")
    assert {s.name for s in streams.suggestions(cap)} == set(cap.subject.labels)


def test_the_question_reads_as_it_is_asked():
    cap = capture(load("tiny-decoder"), TEXT)
    aim = target(cap, " people", " of")
    assert streams.question(aim) == "Why ·people rather than ·of?"
    assert streams.question(target(cap, " people")) == "Why ·people?"


def test_a_word_of_several_tokens_is_told_to_be_cut():
    cap = capture(load("tiny-decoder"), TEXT)
    assert streams.shortened("city", target(cap, "city").names[0]) == (
        "“city” is several tokens; what is looked at is the first, ·c."
    )
    assert streams.shortened("·people", " people") == streams.shortened("", "x") == streams.shortened("#7", "x") == ""
