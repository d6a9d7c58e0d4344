"""What edits did to an answer, against softmax and divergence by hand, plain forward hooks, and each other."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headwise import capture, rerun
from headwise.interp.analysis.effects import (
    answers_at_all,
    asked,
    continued,
    divergence,
    effect,
    moved,
    removals,
    word_effect,
)
from headwise.interp.analysis.targets import target
from headwise.interp.errors import InputError
from headwise.interp.run.edits import ForbidEdge, HeadOutput, MeanHead, Scale, Zero, ZeroHead
from headwise.interp.run.generate import extend
from headwise.models import load

TEXT = "The Congress of the United States met in the city of"


@pytest.fixture(scope="module")
def cap():
    return capture(load("tiny-decoder"), TEXT)


@pytest.fixture(scope="module")
def edited(cap):
    return rerun(cap, [MeanHead(1, 2), ZeroHead(1, 6)])


# -- the numbers by hand --------------------------------------------------------------------------------------------
def test_divergence_of_three_tokens_by_hand():
    before, after = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0])
    total = math.e + math.e**2 + math.e**3
    p, q = ([math.exp(x) / total for x in row] for row in ((1, 2, 3), (3, 2, 1)))
    assert divergence(before, after) == pytest.approx(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))


def test_divergence_of_classes_that_do_not_exclude_each_other_by_hand():
    before, after = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])
    p, q = 0.5, 1 / (1 + math.exp(-1))
    one = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert divergence(before, after, independent=True) == pytest.approx(one)


rows = st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=12)


@given(rows, st.data())
def test_divergence_is_never_negative_and_zero_for_the_same(row, data):
    other = data.draw(st.lists(st.floats(-30, 30, width=32), min_size=len(row), max_size=len(row)))
    before, after = torch.tensor(row), torch.tensor(other)
    assert divergence(before, after) >= 0
    assert divergence(before, before) == 0
    assert divergence(before, before + 5) == pytest.approx(0, abs=1e-6)  # a constant changes no probability


def test_a_token_that_cannot_come_does_not_count():
    before = torch.tensor([0.0, 0.0, -math.inf])
    assert divergence(before, torch.tensor([0.0, 0.0, 0.0])) == pytest.approx(math.log(1.5))
    assert divergence(torch.tensor([0.0, 0.0, 0.0]), before) == math.inf


def test_an_effect_by_hand(cap, edited):
    before, after = cap.logits[0, -1], edited.logits[0, -1]
    token = int(before.argmax())
    found = effect(cap, edited, target(cap))
    assert found.before == pytest.approx(float(before[token])) and found.after == pytest.approx(float(after[token]))
    assert found.change == pytest.approx(float(after[token] - before[token]), abs=1e-5)
    p, q = before.exp() / before.exp().sum(), after.exp() / after.exp().sum()
    assert found.probability == pytest.approx((float(p[token]), float(q[token])), abs=1e-6)
    assert found.kl == pytest.approx(float((p.double() * (p.double() / q.double()).log()).sum()), abs=1e-6)
    assert [c.token for c in found.top] == q.topk(5).indices.tolist()
    assert found.top[0].after == pytest.approx(float(q.max()), abs=1e-6)
    assert found.moved.token == int((q - p).abs().argmax()) and found.position == cap.calls[0].queries - 1
    assert found.measure == "logit" and found.name == "·W"


def test_a_zeroed_head_against_a_plain_hook(cap):
    """The output projection of layer 1 without head 6's part of its input."""
    projection = cap.subject.module.get_submodule("blocks.1.attention.output")
    width = projection.weight.shape[1] // cap.find(1).heads

    def without(layer, given):
        x = given[0].clone()
        x[..., 6 * width : 7 * width] = 0
        return (x,)

    hook = projection.register_forward_pre_hook(without)
    try:
        logits = capture(cap.subject, TEXT).logits[0, -1]
    finally:
        hook.remove()
    wanted = target(cap)
    found = effect(cap, rerun(cap, [ZeroHead(1, 6)]), wanted)
    assert found.change == pytest.approx(float(logits[wanted.token] - cap.logits[0, -1, wanted.token]), abs=1e-5)


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("tiny-decoder", TEXT),
        ("tiny-encoder", "The people of the [MASK] States"),
        ("tiny-classifier", "What a good film."),
        ("tiny-encoder-decoder", "knight"),
    ],
)
def test_nothing_edited_is_exactly_zero(model, given):
    cap = capture(load(model), given)
    same = rerun(cap, [])
    found = effect(cap, same, asked(cap))
    assert found.change == 0 and found.kl == 0 and found.probability[0] == found.probability[1]
    assert all(c.before == c.after for c in (*found.top, found.moved))
    assert moved(cap, same).relative == 0 and moved(cap, same).cosine == 1
    assert answers_at_all(cap)


def test_rather_than_another(cap, edited):
    found = effect(cap, edited, target(cap, " the", " New"))
    before, after = cap.logits[0, -1], edited.logits[0, -1]
    the, new = (target(cap, word).token for word in (" the", " New"))
    assert found.change == pytest.approx(float((after[the] - after[new]) - (before[the] - before[new])), abs=1e-5)
    assert found.measure == "logit difference" and found.name == "·the − ·New"


# -- words of several tokens ----------------------------------------------------------------------------------------
def log_probability(cap, edits, word: str) -> float:
    """Of the word's tokens, one run a token, each read at the end of what stands before it."""
    tokens = load("tiny-decoder").encode(f"{TEXT} {word}").kwargs["input_ids"][0].tolist()[cap.calls[0].queries :]
    inputs, total = cap.inputs, 0.0
    for token in tokens:
        run = capture(cap.subject, inputs, edits)
        total += float(run.logits[0, -1].log_softmax(-1)[token])
        inputs = extend(cap.subject, inputs, [token])
    return total


def test_a_whole_word_is_the_sum_of_its_log_probabilities(cap):
    edits = [ZeroHead(1, 6), ForbidEdge(0, 10, 3, head=2)]
    edited = rerun(cap, edits)
    found = word_effect(cap, edited, "Washington")
    assert found.before == pytest.approx(log_probability(cap, [], "Washington"), abs=1e-4)
    assert found.after == pytest.approx(log_probability(cap, edits, "Washington"), abs=1e-4)
    assert found.probability[1] == pytest.approx(math.exp(found.after), rel=1e-4)
    both = word_effect(cap, edited, "Washington", "Philadelphia")
    other = log_probability(cap, edits, "Philadelphia") - log_probability(cap, [], "Philadelphia")
    assert both.change == pytest.approx(found.change - other, abs=1e-4)
    assert both.measure == "log-probability difference"


def test_a_word_that_is_its_own_alternative(cap, edited):
    with pytest.raises(InputError, match="are the same"):
        word_effect(cap, edited, "Washington", " Washington")


# -- what is written ------------------------------------------------------------------------------------------------
def test_writing_on_is_greedy_and_every_step_is_edited(cap):
    edits = [MeanHead(1, 6), ZeroHead(0, 0), ForbidEdge(1, 10, 3, head=6)]
    inputs, tokens = cap.inputs, []
    for _ in range(4):
        tokens.append(int(capture(cap.subject, inputs, edits).logits[0, -1].argmax()))
        inputs = extend(cap.subject, inputs, tokens[-1:])
    edited = rerun(cap, edits)
    seen = []
    assert [token for token, _ in continued(edited, edits, 4, seen.append)] == tokens
    assert seen == [0.25, 0.5, 0.75, 1]
    assert [token for token, _ in continued(cap, edits, 4)] == tokens
    assert continued(cap, (), 1)[0][1] == " W"


def test_a_target_that_has_ended_is_asked_as_a_whole_and_written_anew():
    cap = capture(load("tiny-encoder-decoder"), "knight")
    ids = cap.inputs.kwargs["decoder_input_ids"][0].tolist()
    logs = cap.logits[0].log_softmax(-1)
    targets = asked(cap)
    assert [t.token for t in targets] == ids[1:]
    total = sum(float(logs[place, token]) for place, token in enumerate(ids[1:]))
    found = effect(cap, rerun(cap, [Zero(HeadOutput(1, None, "cross"))]), targets)
    assert found.before == pytest.approx(total, abs=1e-5) and found.measure == "log-probability"
    assert found.change < 0 < found.kl
    assert "".join(label for _, label in continued(cap, (), 24)).removesuffix("</s>") == "nˈIt"
    first = asked(cap, "b")[0]
    assert first.position == 0 and first.token == target(cap, "b").token


def test_what_gives_no_answer(minilm_folder):
    cap = capture(load(str(minilm_folder)), "A bare encoder.")
    assert not answers_at_all(cap)
    edited = rerun(cap, [ZeroHead(2, 1)])
    was, now = cap.logits[0], edited.logits[0]
    found = moved(cap, edited)
    assert found.relative == pytest.approx(float((now - was).norm() / was.norm()), rel=1e-4)
    cosines = [float(a @ b / a.norm() / b.norm()) for a, b in zip(was, now, strict=True)]
    assert found.cosine == pytest.approx(sum(cosines) / len(cosines), abs=1e-5)


def test_an_edited_run_without_numbers_is_one_sentence(cap):
    broken = rerun(cap, [Scale(HeadOutput(1, 6), math.nan)])
    with pytest.raises(InputError, match="The edited run gives no finite numbers"):
        effect(cap, broken, target(cap))


# -- all heads ------------------------------------------------------------------------------------------------------
def test_the_map_is_each_head_by_itself(cap):
    seen = []
    found = removals(cap, "decoder", "mean", asked(cap), seen.append)
    assert tuple(found.shape) == (4, 8) and seen[-1] == 1
    for layer, head in ((0, 0), (1, 6), (3, 7)):
        alone = effect(cap, rerun(cap, [MeanHead(layer, head)]), target(cap)).change
        assert float(found[layer, head]) == pytest.approx(alone, abs=1e-4)


def test_the_map_of_a_target_that_has_ended_is_of_all_its_tokens():
    cap = capture(load("tiny-encoder-decoder"), "knight")
    found = removals(cap, "cross", "zero", asked(cap))
    alone = effect(cap, rerun(cap, [ZeroHead(1, 2, "cross")]), asked(cap)).change
    assert float(found[1, 2]) == pytest.approx(alone, abs=1e-4)


def test_the_map_without_a_target_is_how_far_the_output_moves(minilm_folder):
    cap = capture(load(str(minilm_folder)), "A bare encoder.")
    found = removals(cap, "encoder", "zero")
    assert tuple(found.shape) == (6, 12)
    assert float(found[2, 3]) == pytest.approx(moved(cap, rerun(cap, [ZeroHead(2, 3)])).relative, rel=1e-4)
