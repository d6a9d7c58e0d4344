"""Two runs side by side: divergences against scipy's on Hugging Face's own weights, and comparisons that are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from headwise import capture, edits, load, rerun
from headwise.interp.analysis.comparing.answer import answers_of
from headwise.interp.analysis.comparing.compare import compare
from headwise.interp.analysis.comparing.places import shares
from headwise.interp.errors import InputError
from headwise.interp.run.sweeping import Cancelled

MARY = "When Mary and John went to the store, John gave a drink to"
TWICE = "When Mary and John went to the store, Mary gave a drink to"
OLD = "When Mary and John went to the old store, John gave a drink to"
REVIEW = "A moving film, full of wit and warmth."


@pytest.fixture(scope="module")
def smol():
    return load("smollm2-135m")


@pytest.fixture(scope="module")
def found(smol):
    return compare(capture(smol, MARY), capture(smol, TWICE))


def eager(subject, text):
    """(L, H, T, T) as Hugging Face's eager attention has them."""
    module = subject.module
    implementation = module.config._attn_implementation
    module.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            found = module(**subject.encode(text).kwargs, output_attentions=True).attentions
    finally:
        module.set_attn_implementation(implementation)
    return torch.cat(found).double().numpy()


def scipys(one, other):
    """Of each row → bits, as scipy's jensenshannon has it but for its root, which fails for less than 0 by rounding."""
    one, other = (rows / rows.sum(-1, keepdims=True) for rows in (one, other))
    middle = (one + other) / 2
    return (rel_entr(one, middle) + rel_entr(other, middle)).sum(-1) / 2 / np.log(2)


def test_divergences_against_scipy_on_eager_weights(smol, found):
    wanted = scipys(eager(smol, MARY), eager(smol, TWICE))  # (L, H, T)
    assert len(found.table) == 270 and found.kind == "inputs"
    for row in found.table.itertuples():
        own = wanted[row.layer, row.head]
        assert row.divergence == pytest.approx(own.mean(), abs=2e-5)
        assert row.largest == pytest.approx(own.max(), abs=2e-4)
    assert found.table["divergence"].is_monotonic_decreasing


def test_the_head_that_looks_at_the_other_name(found):
    """24·4 looks at the name that is about to be said: Mary in the one, John in the other."""
    first = found.table.iloc[0]
    assert (first["layer"], first["head"], first["query"], first["token"]) == (24, 4, 13, " to")
    moved = found.moved("decoder", 24, 4)
    assert moved.query == (13, 13) and moved.lost[0] == 1 and moved.gained[0] == 3
    weights = [cap.find(24).weights(4)[0, 13] for cap in (found.one, found.other)]
    assert moved.lost[1:] == pytest.approx([float(w[1]) for w in weights], abs=1e-5)
    assert moved.gained[1:] == pytest.approx([float(w[3]) for w in weights], abs=1e-5)


def test_an_input_that_is_longer_is_aligned(smol):
    found = compare(capture(smol, MARY), capture(smol, OLD))
    assert found.alignments["input"].alone == ((), (7,))
    keys = [key for key in range(15) if key != 7]
    one, other = eager(smol, MARY), eager(smol, OLD)[:, :, keys]
    beside = np.concatenate([other[..., keys], other[..., 7:8]], -1)  # what the first has not is one place more
    wanted = scipys(np.concatenate([one, np.zeros_like(one[..., :1])], -1), beside)
    for row in found.table.head(30).itertuples():
        assert row.divergence == pytest.approx(wanted[row.layer, row.head].mean(), abs=2e-5)
    rows = found.rows("decoder", 16, 0)
    assert rows.one.shape == rows.other.shape == (14, 15)
    assert rows.one.sum(-1).allclose(torch.ones(14), atol=1e-5)
    assert rows.queries[7] == (7, 8)


def test_nothing_changed_is_nothing():
    cap = capture(load("tiny-decoder"), "The people of the United States")
    same = compare(cap, rerun(cap, []))
    assert same.kind == "edit" and (same.table["divergence"] == 0).all() and (same.table.iloc[:, 10:] == 0).all(None)
    changed = compare(cap, rerun(cap, [edits.MeanHead(1, 6)]))
    by_layer = changed.table.groupby("layer")["divergence"].max()
    assert by_layer[[0, 1]].max() == 0 < by_layer[[2, 3]].min()  # where it looks changes only after it


def test_before_and_after_fine_tuning():
    one, other = (capture(load(name), REVIEW) for name in ("tiny-encoder", "tiny-classifier"))
    found = compare(one, other)
    assert found.kind == "models" and found.match == "number" and not found.notes
    assert (found.table["layer"] == found.table["other_layer"]).all()
    row = found.table.iloc[0]
    before, after = (shares(cap).set_index(["layer", "head"]).loc[(row["layer"], row["head"])] for cap in (one, other))
    for name in ("itself", "before", "first", "entropy"):
        assert row[name] == pytest.approx(after[name] - before[name])
    with pytest.raises(InputError, match="answers with 4,096 tokens, the second with classes unfavourable"):
        answers_of(found)


def test_models_of_other_shapes_are_matched_by_their_patterns():
    one, other = (capture(load(name), MARY) for name in ("tiny-attention-only", "tiny-decoder"))
    found = compare(one, other)
    assert found.match == "pattern" and "differ in shape" in found.notes[0]
    pairs = found.pairs["decoder"]
    assert len(pairs) == 8 == len(set(pairs.values()))
    assert pairs[0, 1] == (0, 1)  # both are previous-token heads, of both models' layer 0
    assert pairs[0, 0] == (0, 0)  # and both look at their own token
    again = compare(one, one, match="pattern")
    assert all(head == partner for head, partner in again.pairs["decoder"].items())


def test_what_both_say(found):
    said = answers_of(found)
    assert said.best == (" Mary", " John") and said.positions == (13, 13)
    rows = [cap.logits[0, -1].double().softmax(-1) for cap in (found.one, found.other)]
    for line in said.table.itertuples():
        assert (line.one, line.other) == pytest.approx([float(row[line.token]) for row in rows], abs=1e-4)
    assert set(said.table["answer"][:2]) == {" Mary", " John"}
    assert said.divergence == pytest.approx(scipys(*(row.numpy() for row in rows)), abs=1e-5)
    logits = [cap.logits[0, -1] for cap in (found.one, found.other)]
    by_name = said.table.set_index("answer")["token"]
    assert str(said.aim) == "·Mary − ·John"
    wanted = [float(row[by_name[" Mary"]] - row[by_name[" John"]]) for row in logits]
    assert said.measured == pytest.approx(wanted, abs=1e-4)
    assert answers_of(found, " Mary", " her").measured[0] > 0
    with pytest.raises(InputError, match="are the same"):
        answers_of(found, " Mary", " Mary")


def test_two_reviews_and_two_words():
    model = load("tiny-classifier")
    said = answers_of(compare(capture(model, REVIEW), capture(model, REVIEW.replace("moving", "dull"))))
    assert said.positions == (None, None) and set(said.table["answer"]) == {"favourable", "unfavourable"}
    assert said.table["change"].sum() == pytest.approx(0, abs=1e-6)
    words = compare(*(capture(load("tiny-encoder-decoder"), (word, None)) for word in ("transformer", "transporter")))
    target = words.alignments["target"]
    first = next(pair for pair, differs in zip(target.pairs, target.differs, strict=True) if differs)
    assert answers_of(words).positions == tuple(place - 1 for place in first)
    axes = zip((target.clean, target.corrupted), first, strict=True)
    assert answers_of(words).best == tuple(axis.labels[place] for axis, place in axes)
    assert {"encoder", "cross", "decoder"} == set(words.table["stack"])


def test_what_has_nothing_in_common_is_refused():
    text = capture(load("tiny-encoder"), REVIEW)
    both = capture(load("tiny-encoder-decoder"), ("knight", None))
    halves = (
        replace(both, calls=both.stack("decoder")),
        replace(both, calls=both.stack("encoder") + both.stack("cross")),
    )
    with pytest.raises(InputError, match="the first has attention in its decoder, the second in its encoder, cross"):
        compare(*halves)
    with pytest.raises(InputError, match="no position of one is alike"):
        compare(text, capture(load("tiny-decoder"), "12"))
    with pytest.raises(InputError, match="number or pattern"):
        compare(text, text, match="name")


def test_it_can_be_stopped_and_says_how_far_it_is():
    cap, told = capture(load("tiny-decoder"), "The people"), []
    compare(cap, cap, progress=told.append)
    assert told == sorted(told) and told[-1] == 1
    with pytest.raises(Cancelled):
        compare(cap, cap, cancel=lambda: True)
