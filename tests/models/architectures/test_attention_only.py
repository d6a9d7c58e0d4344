"""The attention-only transformer against loops over its own weights, and its promises."""

import math

import numpy as np
import pytest
import torch

from headwise import capture
from headwise.interp.masks import Causal
from headwise.models import wrap
from headwise.models.architectures.attention_only import AttentionOnly, AttentionOnlyConfig
from headwise.testing import assert_mask

CONFIG = AttentionOnlyConfig(vocab_size=23, context=20, layers=2, heads=2, width=8)


@pytest.fixture(scope="module")
def module():
    """With weights far larger than at initialisation, so that attention is far from uniform."""
    torch.manual_seed(0)
    module = AttentionOnly(CONFIG).eval().requires_grad_(False)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


@pytest.fixture
def ids():
    return torch.randint(23, (2, 9), generator=torch.Generator().manual_seed(0))


def normalised(x, weight, bias):
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return np.array([(value - mean) / math.sqrt(variance + 1e-5) for value in x]) * weight + bias


def turned(x: np.ndarray, position: int, depth: int) -> np.ndarray:
    """Feature i and feature i + D/2 of each head, turned by position · 10,000^(−2i/D) (Su et al. 2021, §3.2.2)."""
    x, half = x.copy(), depth // 2
    for start in range(0, len(x), depth):
        for i in range(start, start + half):
            angle = position * 10_000 ** (-2 * (i - start) / depth)
            a, b = x[i], x[i + half]
            x[i], x[i + half] = a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)
    return x


def by_loops(weights: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """Logits (T, V) in float64, one number of attention at a time, after Elhage et al. 2021."""
    width, heads, length = CONFIG.width, CONFIG.heads, len(ids)
    depth = width // heads
    stream = [weights["token_embedding.weight"][token] for token in ids]
    for layer in range(CONFIG.layers):
        part = {key.removeprefix(f"blocks.{layer}."): value for key, value in weights.items()}

        def linear(name, x, part=part):
            return part[f"attention.{name}.weight"] @ x + part[f"attention.{name}.bias"]

        read = [normalised(x, part["attention_norm.weight"], part["attention_norm.bias"]) for x in stream]
        q = [turned(linear("query", x), t, depth) for t, x in enumerate(read)]
        k = [turned(linear("key", x), t, depth) for t, x in enumerate(read)]
        v = [linear("value", x) for x in read]
        written = []
        for t in range(length):
            gathered = np.zeros(width)
            for head in range(heads):
                own = slice(head * depth, (head + 1) * depth)
                scores = [q[t][own] @ k[s][own] / math.sqrt(depth) for s in range(t + 1)]
                exponentials = [math.exp(score - max(scores)) for score in scores]
                for s in range(t + 1):
                    gathered[own] += exponentials[s] / sum(exponentials) * v[s][own]
            written.append(linear("output", gathered))
        stream = [x + change for x, change in zip(stream, written, strict=True)]
    final = [normalised(x, weights["final_norm.weight"], weights["final_norm.bias"]) for x in stream]
    return np.array([weights["unembedding.weight"] @ x for x in final])


def test_equals_loops(module, ids):
    weights = {key: value.double().numpy() for key, value in module.state_dict().items()}
    expected = np.stack([by_loops(weights, row.tolist()) for row in ids])
    np.testing.assert_allclose(module(ids).numpy(), expected, atol=1e-5, rtol=1e-5)


def test_positions_reach_queries_and_keys_but_not_values(module, ids):
    x, positions, _ = module.embed(ids)
    attention = module.blocks[0].attention
    q, k, v = attention.project(x, positions=positions)
    other_q, other_k, other_v = attention.project(x, positions=positions.flip(1))
    assert torch.equal(v, other_v)
    assert (q - other_q).abs().amax((0, 1, 3))[0] > 0.1 and (k - other_k).abs().amax((0, 1, 3))[0] > 0.1


def test_padding_on_either_side_changes_nothing(module, ids):
    alone = module(ids[:1, :6])[0]
    padded = ids[:1].expand(2, -1).clone()
    padded[1, 3:] = ids[0, :6]
    real = torch.ones_like(padded)
    real[0, 6:] = 0
    real[1, :3] = 0
    right, left = module(padded, real)
    torch.testing.assert_close(right[:6], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(left[3:], alone, atol=1e-5, rtol=1e-5)


def test_keeps_its_promises(module):
    report = assert_mask(module, Causal())
    assert {"padding", "precision"} <= {probe.id for probe in report.probed if probe.applied}


def test_capture_sees_two_layers(module, ids):
    run = capture(wrap(module, kind="decoder"), {"input_ids": ids})
    assert [(call.layer, call.kind, call.shape) for call in run.calls] == [
        (0, "self", (2, 2, 9, 9)),
        (1, "self", (2, 2, 9, 9)),
    ]
    assert not run.unseen
    for call in run.calls:
        assert torch.equal(call.weights(0).triu(1), torch.zeros(2, 9, 9))
        torch.testing.assert_close(call.weights(1).sum(-1), torch.ones(2, 9))


def test_long_inputs_are_named(module):
    with pytest.raises(ValueError, match="21 tokens exceed the context of 20; shorten the input"):
        module(torch.zeros(1, 21, dtype=torch.long))
