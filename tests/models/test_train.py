"""What the training and the baseline are built on: batches, and Kneser–Ney counts by hand."""

from dataclasses import replace

import pytest
import torch

from models.data import expect_sha256, train_tokenizer
from models.decoder import Decoder, DecoderConfig
from models.evaluate import KneserNeyTrigram, repeated_random
from models.train import (
    IGNORE,
    RECIPES,
    batch,
    learning_rate_factor,
    prefer_offsets,
    random_window,
    repeat_passage,
)


def generator():
    return torch.Generator().manual_seed(5)


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


def test_random_window_repeats_and_hides_the_first_copy():
    for _ in range(20):
        inputs, targets = random_window(1000, 257, bos=0, generator=torch.default_generator)
        assert len(inputs) == len(targets) == 256
        first = int((targets != IGNORE).nonzero()[0])
        size = first - 1
        assert torch.equal(targets[first:-1], inputs[first + 1 :])
        window = torch.cat([inputs, targets[-1:]])[1:]  # the first token may be bos
        assert torch.equal(window[size:], window[:-size])


def test_repeat_passage_writes_an_earlier_passage_later():
    before = torch.arange(257)
    for seed in range(20):
        after = repeat_passage(before.clone(), torch.Generator().manual_seed(seed))
        changed = (after != before).nonzero().flatten()
        distance = before[changed] - after[changed]
        assert 16 <= len(changed) <= 100 and len(distance.unique()) == 1 and distance[0] >= len(changed)


def test_batches_depend_on_seed_and_step_alone():
    _, recipe = RECIPES["decoder"]
    stream = torch.arange(10_000) % 500
    for step in range(0, recipe.steps, 300):
        x, y = batch(step, recipe, stream, vocab_size=500, bos=0)
        assert x.numel() == y.numel() == recipe.tokens_per_step and x.shape[1] in (128, 256, 1024, 2048)
        assert torch.equal(x, batch(step, recipe, stream, vocab_size=500, bos=0)[0])
    other = replace(recipe, seed=recipe.seed + 1)
    assert not torch.equal(batch(0, recipe, stream, 500, 0)[0], batch(0, other, stream, 500, 0)[0])


def test_learning_rate_rises_then_falls_to_zero():
    _, recipe = RECIPES["decoder"]
    factors = [learning_rate_factor(step, recipe) for step in range(recipe.steps)]
    assert factors[0] == 1 / recipe.warmup and max(factors) > 0.97 and factors[-1] == pytest.approx(1 / recipe.steps)


def test_heads_of_the_first_block_start_at_their_offsets():
    torch.manual_seed(0)
    config = DecoderConfig(vocab_size=300, context=128, layers=1, heads=4, width=128)
    attention = Decoder(config).blocks[0].attention
    prefer_offsets(attention, strength=2.0)
    q, k, _ = attention.project(torch.zeros(1, 40, 128), torch.arange(40)[None])  # biases and positions alone
    scores = (q @ k.mT / 32**0.5)[0]  # (H, T, T)
    for head in range(4):
        assert int(scores[head, 20, :21].argmax()) == 20 - (head + 1)
        torch.testing.assert_close(scores[head, 20, 19 - head], torch.tensor(2.0 * 16))  # strength · D/2


def test_tokenizer_knows_every_byte():
    tokenizer = train_tokenizer(["the people of the United States"] * 3, vocab_size=270)
    for text in ("Ünïcödé 🙂", "\t\r\n\x00", "日本"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_repeated_random_has_two_equal_copies_without_bos():
    rows = repeated_random(vocab_size=50, length=64, seeds=range(4), bos=7)
    assert rows.shape == (4, 129) and (rows[:, 0] == 7).all() and not (rows[:, 1:] == 7).any()
    assert torch.equal(rows[:, 1:65], rows[:, 65:]) and int(rows.max()) <= 49


def test_wrong_digest_says_what_came(tmp_path, monkeypatch):
    import hashlib

    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="speeches: expected sha256 abc, got e3b0c442"):
        expect_sha256(hashlib.sha256(b""), "abc", "speeches")
