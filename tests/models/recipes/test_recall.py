"""Associative recall: what a text asks can be told from the text alone, at all distances, and is learned."""

from dataclasses import replace

import pytest
import torch

from headwise.models.recipes import recall
from headwise.models.recipes.language import IGNORE
from headwise.models.recipes.recall import BORDERS, KEYS, VALUES, VOCABULARY, WithPrevious, asked, recaller
from headwise.models.recipes.variants import RUNS


def drawn(length: int, count: int = 4) -> recall.Asked:
    return asked(count, length, torch.Generator().manual_seed(length))


@pytest.mark.parametrize("length", [128, 512, 4096])
def test_what_is_asked_stands_in_the_text(length):
    """Read as a person would: the value is what stood after the key's first appearance, so far back as is said."""
    texts = drawn(length)
    for ids, targets, distances in zip(
        texts.ids.tolist(), texts.targets.tolist(), texts.distances.tolist(), strict=True
    ):
        stood: dict[int, int] = {}
        for at, token in enumerate(ids):
            if token >= KEYS:
                assert targets[at] == IGNORE
            elif token in stood:
                value = ids[stood[token] + 1]
                assert KEYS <= value < KEYS + VALUES and targets[at] == value and distances[at] == at - stood[token]
            else:
                stood[token] = at
                assert targets[at] == IGNORE and at < length / 2
        assert len(stood) == min(recall.PAIRS, length // 8)
    assert texts.ids.max() < VOCABULARY


def test_every_class_of_distances_is_asked_often():
    texts, before = asked(recall.TEXTS, recall.TEXT, torch.Generator().manual_seed(recall.SEED)), 0
    for border in BORDERS:
        asks = (texts.targets != IGNORE) & (texts.distances > before) & (texts.distances <= border)
        assert asks.sum() > 500
        before = border
    assert texts.distances.max() > 3000


def test_texts_depend_on_the_generator_alone():
    assert torch.equal(drawn(512).ids, drawn(512).ids) and not torch.equal(drawn(512).ids, drawn(520).ids[:, :512])


def test_one_who_looks_back_recalls_all_and_one_who_guesses_a_thirty_second():
    def looks_back(ids):
        logits = torch.zeros(*ids.shape, VOCABULARY)
        for row, text in enumerate(ids.tolist()):
            stood = {}
            for at, token in enumerate(text):
                if token < KEYS:
                    logits[row, at, text[min(stood.setdefault(token, at) + 1, len(text) - 1)]] = 1
        return logits

    def guesses(ids):
        values = torch.randint(VALUES, ids.shape, generator=torch.Generator().manual_seed(0)) + KEYS
        return torch.nn.functional.one_hot(values, VOCABULARY)

    def looks_back_a_little(ids):
        near, logits = 64, torch.zeros(*ids.shape, VOCABULARY)
        for row, text in enumerate(ids.tolist()):
            for at, token in enumerate(text):
                there = [place for place in range(max(0, at - near), at) if text[place] == token]
                value = text[there[0] + 1] if there else 0
                logits[row, at, value if KEYS <= value < KEYS + VALUES else 0] = 1
        return logits

    assert recall.recalled(looks_back) == dict.fromkeys(BORDERS, 1.0)
    assert all(share == pytest.approx(1 / 32, abs=0.03) for share in recall.recalled(guesses).values())
    little = recall.recalled(looks_back_a_little)
    assert little[16] > 0.9 and little[256] == little[1024] == little[4096] == 0


def test_an_embedding_beside_the_one_before_it():
    layer = WithPrevious(9, 4)
    x = layer(torch.tensor([[2, 5, 5]]))
    assert torch.equal(x[0, 0], layer.weight[2])
    assert torch.allclose(x[0, 1:], layer.weight[5] + layer.weight[[2, 5]] @ layer.previous.weight.T)


@pytest.mark.parametrize("name", RUNS)
def test_recallers_are_alike_in_size_and_causal(name):
    module = recaller(RUNS[name]).eval()
    count = sum(p.numel() for p in module.parameters())
    assert count == pytest.approx(sum(p.numel() for p in recaller(RUNS["tiny-full"]).parameters()), rel=0.1)
    ids = drawn(128, 1).ids
    other = ids.clone()
    other[0, 90] = (other[0, 90] + 1) % VOCABULARY
    following = RUNS[name].following(module)
    moved = (following(ids) - following(other)).abs().amax((0, 2)) > 1e-5
    assert not moved[:90].any() and moved[90]


def test_full_attention_learns_it_in_a_few_steps(monkeypatch):
    """Nearly all of it after 140 steps of short texts."""
    monkeypatch.setattr(recall, "RECIPE", replace(recall.RECIPE, steps=140))
    monkeypatch.setattr(recall, "LENGTHS", (128,))
    monkeypatch.setattr(recall, "TOKENS_PER_STEP", 2048)
    losses = []
    run = RUNS["tiny-full"]
    module = recall.learn(run, lambda step, loss: losses.append(loss))
    assert losses[0] > 3 > 1 > losses[-1]
    texts = drawn(128, 8)
    right = run.following(module)(texts.ids).argmax(-1) == texts.targets
    assert right[texts.targets != IGNORE].float().mean() > 0.8
