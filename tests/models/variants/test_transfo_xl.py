"""Transformer-XL against the authors' own layers, as pytorch-transformers 1.2.0 has them: several segments, each with
the memory of the last."""

import pytest
import torch
from torch import nn

from headwise import capture, wrap
from headwise.models.variants.transformer_xl import TransformerXL

field = pytest.importorskip("pytorch_transformers.modeling_transfo_xl")

WIDTH, HEADS, LAYERS = 16, 2, 3
IDS = torch.randint(50, (2, 37), generator=torch.Generator().manual_seed(0))  # 37: no multiple of a segment


def theirs(segment: int, memory: int) -> nn.Module:
    torch.manual_seed(0)
    config = field.TransfoXLConfig(
        50, cutoffs=[20, 40], d_model=WIDTH, d_embed=WIDTH, n_head=HEADS, d_head=WIDTH // HEADS, d_inner=32, div_val=1,
        n_layer=LAYERS, tgt_len=segment, mem_len=memory, clamp_len=-1, same_length=False, output_attentions=True,
    )  # fmt: skip
    module = field.TransfoXLModel(config).eval()
    for t in module.parameters():
        nn.init.normal_(t, std=0.2)
    return module


def of(layer: nn.Module, segment: int, memory: int) -> TransformerXL:
    """Our attention with the weights of theirs. Their sinusoids are all sines, then all cosines; no biases."""
    ours = TransformerXL(WIDTH, HEADS, segment, memory)
    interleaved = torch.arange(WIDTH).view(2, -1).t().flatten()
    with torch.no_grad():
        for part, weight in zip((ours.query, ours.key, ours.value), layer.qkv_net.weight.chunk(3), strict=True):
            part.weight.copy_(weight)
            part.bias.zero_()
        ours.output.weight.copy_(layer.o_net.weight)
        ours.output.bias.zero_()
        ours.distance.weight.copy_(layer.r_net.weight[:, interleaved])
        ours.about_content.copy_(layer.r_w_bias)
        ours.about_distance.copy_(layer.r_r_bias)
    return ours


class Ours(nn.Module):
    """Their model with our attention in it: the whole text at once."""

    def __init__(self, whole: nn.Module, segment: int, memory: int):
        super().__init__()
        self.embedding, self.layers = whole.word_emb, whole.layers
        self.attentions = nn.ModuleList(of(layer.dec_attn, segment, memory) for layer in whole.layers)

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        for layer, attention in zip(self.layers, self.attentions, strict=True):
            x = layer.pos_ff(layer.dec_attn.layer_norm(x + attention(x, causal=True)))
        return x


@pytest.mark.parametrize("segment, memory", [(8, 8), (8, 16), (8, 5), (10, 3), (37, 4), (8, 0)])
def test_it_is_theirs_over_several_segments(segment, memory):
    whole = theirs(segment, memory)
    ours = Ours(whole, segment, memory).eval()
    cap = capture(wrap(ours, kind="decoder"), {"input_ids": IDS})
    assert not cap.unseen and [call.layer for call in cap.calls] == [0, 1, 2]
    memories, outs = [torch.zeros(0, 2, WIDTH)] * LAYERS, []  # nothing yet; None would be zeros that are attended to
    for start in range(0, 37, segment):
        with torch.no_grad():
            out, memories, attentions = whole(IDS[:, start : start + segment], memories)
        outs.append(out)
        for call, seen in zip(cap.calls, attentions, strict=True):
            weights = seen[:, 1]  # (B, S, M + S): the memory, then the segment
            end = start + weights.shape[1]
            ours_there = call.weights(1, (start, end))[..., end - weights.shape[2] : end]
            assert weights.shape[2] == min(start, memory) + weights.shape[1]
            assert torch.allclose(ours_there, weights, atol=1e-5)
    assert (torch.cat(outs, 1) - ours(IDS)).abs().max() < 1e-4


def test_a_memory_that_is_given_is_theirs():
    """Their first segment has a memory of zeros, which is attended to."""
    layer = theirs(8, 5).layers[0].dec_attn
    attention, x = of(layer, 8, 5), torch.randn(2, 8, WIDTH, generator=torch.Generator().manual_seed(1))
    distances = torch.arange(12, -1, -1.0)
    with torch.no_grad():
        seen = torch.triu(torch.ones(8, 13), 6).bool()[:, :, None]
        at = field.PositionalEmbedding(WIDTH)(distances)
        wanted = layer(x.transpose(0, 1), at, seen, torch.zeros(5, 2, WIDTH))[0].transpose(0, 1)
        got = layer.layer_norm(x + attention(x, past=torch.zeros(2, 5, WIDTH)))
    assert (got - wanted).abs().max() < 1e-4


def test_theirs_is_seen_with_the_memory_named():
    whole = theirs(8, 5)
    memories = list(torch.randn(LAYERS, 5, 2, WIDTH, generator=torch.Generator().manual_seed(2)))
    cap = capture(wrap(whole, kind="decoder"), {"input_ids": IDS[:, :8], "mems": memories})
    with torch.no_grad():
        attentions = whole(IDS[:, :8], memories)[2]
    assert not cap.unseen and len(cap.calls) == LAYERS
    for call, seen in zip(cap.calls, attentions, strict=True):
        assert torch.allclose(call.weights(0), seen[:, 0], atol=1e-6)
        assert call.key_axis.labels == (*(f"memory −{i}" for i in (5, 4, 3, 2, 1)), *call.query_axis.labels)
