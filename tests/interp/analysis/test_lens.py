"""Lenses against Hugging Face's own hidden states, and against a forward by hand."""

import pytest
import torch
from torch import nn

from headwise import capture, load, wrap
from headwise.interp.analysis.lens import lens, norms
from headwise.interp.errors import InputError

IOI = "When Mary and John went to the store, John gave a drink to"
PEOPLE = "The people of the United States"


@pytest.fixture(scope="module")
def smol():
    return capture(load("smollm2-135m"), IOI)


@pytest.fixture(scope="module")
def small():
    return capture(load("tiny-decoder"), PEOPLE)


def test_the_logit_lens_is_the_models_head_on_hugging_faces_hidden_states(smol):
    module = smol.subject.module
    with torch.no_grad():
        output = module(**smol.inputs.kwargs, output_hidden_states=True)
        early = [module.lm_head(module.model.norm(h)) for h in output.hidden_states[:-1]]  # the last is normed already
    found = lens(smol)
    assert found.labels == ("start", *map(str, range(30)))
    for row, logits in enumerate([*early, output.logits]):
        torch.testing.assert_close(found.logits(row), logits[0], rtol=1e-5, atol=1e-4)
    mary = smol.subject.encode("to Mary").kwargs["input_ids"][0, 1].item()
    by_hand = torch.stack([logits[0].softmax(-1)[:, mary] for logits in [*early, output.logits]])
    torch.testing.assert_close(found.probability(mary), by_hand, rtol=1e-3, atol=1e-6)
    assert found.rank(mary)[-1, -1] == 1 and found.best_labels[-1][-1] == " Mary"


def test_the_last_row_is_the_models_own_answer(small):
    found = lens(small)
    torch.testing.assert_close(found.logits(-1 % len(found.labels)), small.logits[0], rtol=0, atol=1e-5)
    assert found.kl[-1].abs().max() == 0 and bool((found.kl >= 0).all())


def test_divergence_and_rank_against_figures_by_hand(small):
    found = lens(small)
    end, early = small.logits[0].softmax(-1), found.logits(1).softmax(-1)
    expected = (end * (end / early).log()).sum(-1)
    torch.testing.assert_close(found.kl[1], expected, rtol=1e-4, atol=1e-5)
    token = int(end[-1].argmax())
    order = early[-1].argsort(descending=True).tolist()
    assert int(found.rank(token)[1, -1]) == order.index(token) + 1
    assert [t for t, _, _ in found.top(1, len(end) - 1, 3)] == order[:3]


def test_the_table_says_the_same_as_the_tensors(small):
    found = lens(small)
    token = int(small.logits[0, -1].argmax())
    table = found.table(token)
    assert len(table) == len(found.labels) * len(found.axis)
    line = table[(table["after"] == "2") & (table["position"] == 3)].iloc[0]
    assert line["rank"] == int(found.rank(token)[3, 3])
    assert line["best"] == found.best_labels[3][3] and line["token"] == found.axis.labels[3]


@pytest.mark.parametrize("name", ["tiny-decoder", "tiny-attention-only"])
def test_the_tuned_lens_is_nearer_to_the_answer_than_the_logit_lens(name):
    cap = capture(load(name), "It is the duty of the Government to protect the people and the law of the land.")
    tuned, plain = lens(cap, tuned=True), lens(cap)
    assert tuned.tuned and not plain.tuned
    assert bool((tuned.kl[:-1].mean(1) < plain.kl[:-1].mean(1)).all())
    assert tuned.kl[-1].abs().max() == 0
    assert all(a < b for a, b in zip(tuned.translators.gained, tuned.translators.plain, strict=True))


def test_the_tuned_lens_is_an_affine_map_before_the_models_head(small):
    found = lens(small, tuned=True)
    state, module = small.residuals[1], small.subject.module
    carried = state + state @ found.translators.weights[1].mT + found.translators.biases[1]
    with torch.no_grad():
        by_hand = nn.functional.linear(module.final_norm(carried), module.token_embedding.weight)
    torch.testing.assert_close(found.logits(1), by_hand[0], rtol=1e-4, atol=1e-4)


def test_norms_and_turns_against_hugging_faces_hidden_states(smol):
    with torch.no_grad():
        states = smol.subject.module(**smol.inputs.kwargs, output_hidden_states=True).hidden_states
    table = norms(smol)
    line = table[(table["after"] == "4") & (table["position"] == 7)].iloc[0]
    before, after = states[4][0, 7], states[5][0, 7]
    assert line["norm"] == pytest.approx(float(after.norm()), rel=1e-4)
    assert line["change"] == pytest.approx(float((after - before).norm()), rel=1e-4)
    assert line["cosine"] == pytest.approx(float(torch.cosine_similarity(before, after, 0)), abs=1e-4)


def test_a_masked_model_and_a_classifier_are_read_early_too():
    masked = lens(capture(load("tiny-encoder"), "The capital of France is [MASK] ."))
    torch.testing.assert_close(masked.logits(4), masked.cap.logits[0], rtol=0, atol=1e-4)
    assert "bends" in masked.note
    classes = lens(capture(load("tiny-classifier"), "A warm and funny film"))
    torch.testing.assert_close(classes.logits(4)[0], classes.cap.logits[0], rtol=0, atol=1e-4)
    assert classes.best_labels[-1][0] in ("favourable", "unfavourable")


def test_where_there_is_nothing_to_read_one_sentence_says_why():
    with pytest.raises(InputError, match="minilm-l6 has no unembedding"):
        lens(capture(load("minilm-l6"), "hello world"))
    with pytest.raises(InputError, match="No tuned lens has been trained for tiny-encoder-decoder"):
        lens(capture(load("tiny-encoder-decoder"), "through"), tuned=True)
    plain = capture(wrap(nn.Linear(4, 4)), torch.ones(1, 3, 4))
    with pytest.raises(InputError, match="could not be proven"):
        norms(plain)


def test_the_other_stream_of_an_encoder_decoder_has_norms_but_no_lens():
    cap = capture(load("tiny-encoder-decoder"), "through")
    with pytest.raises(InputError, match="read by no unembedding"):
        lens(cap, stream="encoder")
    assert set(norms(cap, "encoder")["token"]) >= {"t", "h"}
