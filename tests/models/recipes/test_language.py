"""What language models are measured with: Kneser–Ney by hand, head scores from captured patterns, losses by window."""

import re

import pytest
import torch
from torch import tensor

from headwise import capture
from headwise.assets import ASSETS
from headwise.models import wrap
from headwise.models.architectures.attention_only import AttentionOnly, AttentionOnlyConfig
from headwise.models.architectures.decoder import Decoder, DecoderConfig
from headwise.models.recipes.data import END_OF_TEXT
from headwise.models.recipes.language import KneserNeyTrigram, best_head, head_table, token_losses
from headwise.models.sources.bundled import load_bundled
from tests.models.drawn import enlarged, generator


def test_kneser_ney_by_hand():
    """a b a b a c over {a, b, c}: trigrams aba ×2, bab ×1, bac ×1; so d₃ = 2 / (2 + 2·1) = 1/2.

    N(·vw): ba 1, ab 1, ac 1, so d₂ = 3 / 3 = 1. N(·w): a 1, b 1, c 1, so d₁ = 1.
    P(w) = 1/3 and P(a | b) = P(c | a) = P(w) = 1/3, as nothing is left after such discounts.
    P(a | ab) = (2 − 1/2) / 2 + (1/2 · 1) / 2 · 1/3 = 5/6.
    P(c | ba) = (1 − 1/2) / 2 + (1/2 · 2) / 2 · 1/3 = 5/12.
    """
    a, b, c = range(3)
    model = KneserNeyTrigram([a, b, a, b, a, c], vocab_size=3)
    assert model.probability(a, b, a) == pytest.approx(5 / 6)
    assert model.probability(b, a, c) == pytest.approx(5 / 12)
    assert model.probability(c, c, b) == pytest.approx(1 / 3)  # a context never seen


def test_kneser_ney_sums_to_one():
    ids = torch.randint(9, (400,), generator=generator()).square().remainder(11).tolist()
    model = KneserNeyTrigram(ids, vocab_size=11)
    for u, v in ((0, 1), (4, 4), (10, 3)):
        assert sum(model.probability(u, v, w) for w in range(11)) == pytest.approx(1)


@pytest.mark.parametrize(
    "module",
    [
        Decoder(DecoderConfig(vocab_size=40, context=64, layers=2, heads=2, width=8)),
        AttentionOnly(AttentionOnlyConfig(vocab_size=40, context=64, layers=2, heads=2, width=8)),
    ],
    ids=["decoder", "attention-only"],
)
def test_head_scores_are_means_of_patterns(module):
    ids = []
    for seed in range(3):
        r = torch.randint(39, (5,), generator=generator(seed)) + 1  # bos is token 0
        ids.append(torch.cat([tensor([0]), r, r]))
    calls = capture(wrap(enlarged(module), kind="decoder"), {"input_ids": torch.stack(ids)}).calls
    table = head_table(module, bos=0, length=5, batch=3).set_index(["layer", "head"])
    assert len(table) == 4
    for layer, call in enumerate(calls):
        for head in range(2):
            pattern = call.weights(head)  # (B, T, T)
            before = [pattern[b, t, t - 1] for b in range(3) for t in range(1, 11)]
            after_earlier = [pattern[b, t, t - 4] for b in range(3) for t in range(6, 11)]
            found = table.loc[(layer, head)]
            assert found["previous"] == pytest.approx(float(sum(before) / len(before)), abs=1e-6)
            assert found["induction"] == pytest.approx(float(sum(after_earlier) / 15), abs=1e-6)


def test_bundled_decoder_scores_what_its_card_says():
    module, tokenizers, _ = load_bundled("tiny-decoder")
    card = (ASSETS / "tiny-decoder" / "README.md").read_text(encoding="utf-8")
    table = head_table(module, tokenizers["text"].token_to_id(END_OF_TEXT), seed=1000)
    for what, metric in (("previous-token", "previous"), ("induction", "induction")):
        score, layer, head = re.search(rf"best {what} +([\d.]+) at layer (\d+), head (\d+)", card).groups()
        assert best_head(table, metric) == (int(layer), int(head), pytest.approx(float(score), abs=6e-4))


def test_token_losses_are_those_of_each_window():
    module = enlarged(Decoder(DecoderConfig(vocab_size=40, context=64, layers=1, heads=2, width=8)))
    ids = torch.randint(40, (23,), generator=generator()).tolist()
    losses = token_losses(module, ids, window=7)
    assert losses.shape == (3, 7)  # 22 predictions; the last one fills no window
    chances = module(tensor([ids[7:14]]))[0].softmax(-1)
    for t in range(7):
        assert float(losses[1, t]) == pytest.approx(-float(chances[t, ids[8 + t]].log()), abs=1e-5)
