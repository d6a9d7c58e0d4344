"""The encoder-decoder against torch.nn.Transformer, its formulas by hand, and its promises."""

import math

import pytest
import torch
from torch import nn

from headwise import capture
from headwise.interp.masks import Causal
from headwise.models import wrap
from headwise.models.architectures.blocks import Attention, sinusoids
from headwise.models.architectures.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

CONFIG = EncoderDecoderConfig(source_size=31, target_size=19, context=16, layers=2, heads=3, width=12)


@pytest.fixture(scope="module")
def module():
    """With weights far larger than at initialisation, so that attention is far from uniform."""
    torch.manual_seed(0)
    module = EncoderDecoder(CONFIG).eval().requires_grad_(False)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def copied(attention: Attention, theirs: nn.MultiheadAttention) -> None:
    three = (attention.query, attention.key, attention.value)
    theirs.in_proj_weight.copy_(torch.cat([linear.weight for linear in three]))
    theirs.in_proj_bias.copy_(torch.cat([linear.bias for linear in three]))
    theirs.out_proj.load_state_dict(attention.output.state_dict())


@pytest.fixture(scope="module")
def theirs(module) -> nn.Transformer:
    """torch's transformer with our weights; its two stacks without the norms that torch puts after them, as in 2017."""
    shape = {
        "d_model": 12,
        "nhead": 3,
        "dim_feedforward": 48,
        "dropout": 0.0,
        "activation": "relu",
        "batch_first": True,
    }
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**shape), 2, enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**shape), 2)
    other = nn.Transformer(**shape, custom_encoder=encoder, custom_decoder=decoder).eval().requires_grad_(False)
    for block, layer in zip(module.encoder.blocks, other.encoder.layers, strict=True):
        copied(block.attention, layer.self_attn)
        norms = [(layer.norm1, block.attention_norm), (layer.norm2, block.mlp_norm)]
        for target, source in [*norms, (layer.linear1, block.mlp.expand), (layer.linear2, block.mlp.contract)]:
            target.load_state_dict(source.state_dict())
    for block, layer in zip(module.decoder.blocks, other.decoder.layers, strict=True):
        copied(block.attention, layer.self_attn)
        copied(block.cross_attention, layer.multihead_attn)
        norms = [
            (layer.norm1, block.attention_norm),
            (layer.norm2, block.cross_attention_norm),
            (layer.norm3, block.mlp_norm),
        ]
        for target, source in [*norms, (layer.linear1, block.mlp.expand), (layer.linear2, block.mlp.contract)]:
            target.load_state_dict(source.state_dict())
    return other


@pytest.fixture
def source():
    return torch.randint(31, (3, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def target():
    return torch.randint(19, (3, 7), generator=torch.Generator().manual_seed(1))


def embedded(stack, ids):
    """Embeddings times √C plus sin(p / 10000^(2i/C)) and the cosine, number by number (§3.4 and §3.5)."""
    x = stack.embedding.weight[ids] * math.sqrt(12)
    for p in range(ids.shape[1]):
        for i in range(6):
            x[:, p, 2 * i] += math.sin(p / 10_000 ** (2 * i / 12))
            x[:, p, 2 * i + 1] += math.cos(p / 10_000 ** (2 * i / 12))
    return x


def test_sinusoids_by_the_papers_formula():
    table = sinusoids(40, 6)
    for p in (0, 1, 7, 39):
        for i in range(3):
            angle = p / 10_000 ** (2 * i / 6)
            expected = torch.tensor([math.sin(angle), math.cos(angle)])
            torch.testing.assert_close(table[p, 2 * i : 2 * i + 2], expected, atol=1e-6, rtol=0)


def test_equals_torch(module, theirs, source, target):
    memory = module.encoder(source, None)
    x, y = embedded(module.encoder, source), embedded(module.decoder, target)
    hidden = theirs(x, y, tgt_mask=torch.ones(7, 7, dtype=torch.bool).triu(1))  # torch: True = may not attend
    torch.testing.assert_close(memory, theirs.encoder(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(module.decode(target, memory), hidden, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(module(source, target), module.output(hidden), atol=1e-5, rtol=1e-5)


def test_equals_torch_under_padding(module, theirs, source, target):
    real, real_target = torch.ones_like(source).bool(), torch.ones_like(target).bool()
    real[1, 5:] = real[2, :3] = False
    real_target[0, 4:] = False
    hidden = theirs(
        embedded(module.encoder, source),
        embedded(module.decoder, target),
        tgt_mask=torch.ones(7, 7, dtype=torch.bool).triu(1),
        src_key_padding_mask=~real,
        tgt_key_padding_mask=~real_target,
        memory_key_padding_mask=~real,
    )
    said = module(source, target, real.long(), real_target.long())
    torch.testing.assert_close(said[real_target], module.output(hidden)[real_target], atol=1e-5, rtol=1e-5)


def test_padding_on_the_right_changes_nothing(module, source, target):
    alone = module(source[:1, :6], target[:1, :5])
    real, real_target = torch.ones(1, 9).long(), torch.ones(1, 7).long()
    real[:, 6:] = real_target[:, 5:] = 0
    padded = module(source[:1], target[:1], real, real_target)
    torch.testing.assert_close(padded[:, :5], alone, atol=1e-5, rtol=1e-5)


def test_later_targets_change_nothing_but_every_source_token_does(module, source, target):
    before = module(source, target)
    changed = target.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 19
    after = module(source, changed)
    assert torch.equal(after[:, :4], before[:, :4]) and not torch.equal(after[:, 4], before[:, 4])
    changed = source.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 31
    assert (module(changed, target)[:, 0] - before[:, 0]).abs().max() > 1e-3


def argmax_loop(module, ids, start, end, limit):
    said = []
    while len(said) < limit:
        best = int(module(ids, torch.tensor([[start, *said]]))[0, -1].argmax())
        if best == end:
            break
        said.append(best)
    return said


def test_generate_equals_an_argmax_loop_and_stops(module, source):
    free = [argmax_loop(module, row[None], start=1, end=-1, limit=10) for row in source]
    assert module.generate(source, start=1, end=-1, limit=10) == free
    end = free[0][4]  # a token that the model does write, so generation has something to stop at
    expected = [argmax_loop(module, row[None], start=1, end=end, limit=10) for row in source]
    said = module.generate(source, start=1, end=end, limit=10)
    assert said == expected and len(said[0]) <= 4
    assert module.generate(source[:1], start=1, end=end, limit=2) == [expected[0][:2]]
    assert len(module.generate(source, start=1, end=-1, limit=99)[0]) == CONFIG.context - 1


def test_capture_tells_three_kinds_of_attention(module, source, target):
    run = capture(wrap(module, kind="encoder-decoder"), {"input_ids": source, "decoder_input_ids": target})
    assert run.stacks == ("encoder", "decoder", "cross") and not run.unseen
    seen = {name: [(call.layer, call.kind, call.shape) for call in run.stack(name)] for name in run.stacks}
    assert seen == {
        "encoder": [(0, "self", (3, 3, 9, 9)), (1, "self", (3, 3, 9, 9))],
        "decoder": [(0, "self", (3, 3, 7, 7)), (1, "self", (3, 3, 7, 7))],
        "cross": [(0, "cross", (3, 3, 7, 9)), (1, "cross", (3, 3, 7, 9))],
    }
    for name in run.stacks:
        for call in run.stack(name):
            weights = call.weights(1)
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
            assert (weights.triu(1) == 0).all() == (name == "decoder")
            assert (call.mask == Causal()) == (name == "decoder")
    assert run.fidelity <= 1e-5


def test_long_inputs_are_named(module, source):
    with pytest.raises(ValueError, match="17 tokens exceed the context of 16; shorten the input"):
        module(source, torch.zeros(3, 17, dtype=torch.long))
