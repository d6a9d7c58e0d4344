"""What the encoder learns from: hidden tokens, pairs of passages, and heads that start beside their own place."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from headwise.models.architectures.encoder import Encoder, EncoderConfig
from headwise.models.recipes.encoder import MASKED, OFFSETS, Between, Pairs, corrupt, examples, prefer_neighbours
from tests.models.drawn import generator


def test_corrupt_hides_a_share_of_each_row():
    ids = torch.randint(5, 4000, (500, 103), generator=generator())
    ids[:, 0], ids[:, 60], ids[:, 102] = 2, 3, 3  # [CLS] and [SEP]
    real = ids > 4
    seen, places, chosen = corrupt(ids, real, mask=4, vocab_size=4000, generator=generator(6))
    assert places.shape == chosen.shape == (500, 21) == (500, round(MASKED * 103))
    assert (chosen.sum(1) == 20).all() and round(MASKED * 100) == 20
    assert all(len(set(row)) == 21 for row in places.tolist())
    hidden = torch.zeros_like(real).scatter(1, places, chosen)
    assert not (hidden & ~real).any() and torch.equal(seen[~hidden], ids[~hidden])
    masked, kept = (seen == 4)[hidden].float().mean(), (seen == ids)[hidden].float().mean()
    assert masked == pytest.approx(0.8, abs=0.016) and kept == pytest.approx(0.1, abs=0.012)  # 4 σ of 10,000
    replaced = seen[hidden & (seen != 4) & (seen != ids)]
    assert len(replaced) / 10_000 == pytest.approx(0.1, abs=0.012)
    assert replaced.min() >= 5 and replaced.float().mean() == pytest.approx(2000, abs=150)
    per_place = hidden[:, 1:60].float().mean(0)
    assert per_place.min() > 0.1 and per_place.max() < 0.32  # no place is spared or preferred


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 2**31))
def test_short_rows_hide_the_same_share_and_padding_stays(lengths, seed):
    real = torch.arange(40) < torch.tensor(lengths)[:, None]
    ids = torch.where(real, 9, 0)
    seen, places, chosen = corrupt(ids, real, mask=4, vocab_size=30, generator=generator(seed))
    assert chosen.sum(1).tolist() == [min(n, max(1, round(MASKED * n))) for n in lengths]
    assert real.gather(1, places)[chosen].all() and torch.equal(seen[~real], ids[~real])


@pytest.fixture(scope="module")
def pairs():
    """Documents whose every word says where it stands: d3s1w0 is word 0 of sentence 1 of document 3."""
    sizes = torch.randint(2, 7, (12, 9), generator=generator()).tolist()
    documents = [
        [" ".join(f"d{d}s{s}w{w}" for w in range(size)) for s, size in enumerate(row[: 1 if d % 3 == 0 else 9])]
        for d, row in enumerate(sizes)
    ]
    words = " ".join(sentence for document in documents for sentence in document).split()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*special, *words])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Pairs(tokenizer, documents)


def places_of(pairs, ids):
    """Token ids → (document, sentence, word) of each."""
    return [tuple(map(int, re.findall(r"\d+", pairs.tokenizer.id_to_token(token)))) for token in ids]


def whole(pairs, places, room):
    """Successive sentences of one document, the first of them from its start: whole ones while there is room, or a part
    of the first."""
    (document,) = {d for d, _, _ in places}
    first, last = places[0][1], places[-1][1]
    expected = [(document, s, w) for s in range(first, last + 1) for w in range(len(pairs.documents[document][s]))]
    assert places == (expected if first < last else expected[:room])
    if last + 1 < len(pairs.documents[document]):
        assert len(places) + len(pairs.documents[document][last + 1]) > room  # the next one did not fit
    return document, first, last


@pytest.mark.parametrize("length", [40, 24, 9])
def test_pairs_follow_or_come_from_elsewhere(pairs, length):
    labels = []
    for seed in range(300):
        ids, segments, label = pairs.draw(length, generator(seed))
        labels.append(label)
        assert len(ids) == len(segments) <= length and ids[0] == pairs.cls and ids[-1] == pairs.sep
        cut = ids.index(pairs.sep)
        assert segments == [0] * (cut + 1) + [1] * (len(ids) - cut - 1)
        if label == -100:
            assert cut == len(ids) - 1
            assert len({d for d, _, _ in places_of(pairs, ids[1:-1])}) == 1
            continue
        first = places_of(pairs, ids[1:cut])
        room = length - 3
        document, _, last = whole(pairs, first, room // 2)
        other, start, _ = whole(pairs, places_of(pairs, ids[cut + 1 : -1]), room - len(first))
        if label == 0:
            assert (other, start) == (document, last + 1)
        else:
            assert other != document and len(pairs.documents[other]) > 1
    counts = {label: labels.count(label) for label in (-100, 0, 1)}
    assert min(counts.values()) > 5 and counts[1] > counts[0] / 2


def test_examples_say_what_stood_at_the_hidden_places(pairs):
    vocab_size = pairs.tokenizer.get_vocab_size()
    seen, segments, real, places, targets, follows = examples(pairs, 32, 40, vocab_size, generator())
    assert seen.shape == segments.shape == real.shape == (40, 32) and follows.shape == (40,)
    assert places.shape == targets.shape == (40, round(MASKED * 32))
    drawing = generator()
    for row in range(40):
        ids, parts, label = pairs.draw(32, drawing)
        assert int(real[row].sum()) == len(ids) and segments[row, : len(ids)].tolist() == parts
        assert follows[row] == label
        hidden = {p: t for p, t in zip(places[row].tolist(), targets[row].tolist(), strict=True) if t != -100}
        assert hidden and all(ids[p] == t and t > 4 for p, t in hidden.items())
        assert all(seen[row, p] == token for p, token in enumerate(ids) if p not in hidden)
        assert not seen[row, len(ids) :].any()


def test_heads_of_the_encoder_start_beside_their_own_place():
    config = EncoderConfig(vocab_size=90, layers=1, heads=6, width=192, context=128)
    module = Encoder(config)
    prefer_neighbours(module)
    places = module.position_embedding.weight[None]
    q, k, _ = module.blocks[0].attention.project(places)
    best = (q @ k.mT)[0].argmax(-1)[:, 8:120] - torch.arange(8, 120)  # (H, T): how far on each query looks
    assert best.median(1).values.tolist() == list(OFFSETS)
    for head, offset in enumerate(OFFSETS):
        assert (best[head] == offset).float().mean() > 0.5 and (best[head] - offset).abs().float().mean() < 1


def test_guess_between_two_neighbours():
    """5 6 7 twice and 5 8 7 once: 6 stands between 5 and 7 and after 5; 9 is commonest of all."""
    baseline = Between([[[5, 6, 7], [5, 6, 7]], [[5, 8, 7]], [[9, 9, 9, 9]]])
    assert baseline.guess(5, 7) == 6
    assert baseline.guess(5, 9) == 6  # never seen between: after the left one
    assert baseline.guess(8, 5) == 7
    assert baseline.guess(99, 98) == 9
