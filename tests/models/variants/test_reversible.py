"""Two streams: the gradients of the plain computation, without its memory."""

import pytest
import torch
from torch import nn

from headwise import check, masks
from headwise.models.architectures.variant import VariantConfig, VariantDecoder
from headwise.models.variants.reversible import in_chunks, reversible, through
from tests.models.variants.decoding import assert_steps_are_the_forward, some_ids


def halves(layers: int, width: int = 8) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(2 * layers)).double()


def pairs(modules: nn.ModuleList) -> list:
    return list(zip(modules[::2], modules[1::2], strict=True))


def test_gradients_are_those_of_the_plain_streams():
    modules, x = halves(5), torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    known = [x, *modules.parameters()]
    ours = torch.autograd.grad(reversible(pairs(modules), x, list(modules.parameters())).sin().sum(), known)
    first, second = through(pairs(modules), x, x)
    wanted = torch.autograd.grad(((first + second) / 2).sin().sum(), known)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(ours, wanted, strict=True))
    assert all(float(g.abs().max()) > 1e-3 for g in wanted)


def test_a_layer_used_twice_gets_both_its_gradients():
    modules, x = halves(1), torch.randn(2, 3, 8, dtype=torch.float64)
    twice = pairs(modules) * 2
    known = list(modules.parameters())
    ours = torch.autograd.grad(reversible(twice, x, known).sin().sum(), known)
    first, second = through(twice, x, x)
    wanted = torch.autograd.grad(((first + second) / 2).sin().sum(), known)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(ours, wanted, strict=True))


def kept(run, parameters) -> int:
    """Numbers that a forward keeps for the way back, beside the parameters."""
    total, known = 0, {p.data_ptr() for p in parameters}

    def count(t):
        nonlocal total
        total += t.numel() if t.data_ptr() not in known else 0
        return t

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        run()
    return total


def test_memory_does_not_grow_with_depth():
    x, ours, plain = torch.randn(2, 3, 8, dtype=torch.float64), [], []
    for layers in (2, 8):
        modules = halves(layers)
        learnt = list(modules.parameters())
        ours.append(kept(lambda m=modules, p=learnt: reversible(pairs(m), x, p), learnt))
        plain.append(kept(lambda m=modules: through(pairs(m), x, x), learnt))
    assert ours == [2 * x.numel()] * 2  # the two streams
    assert plain[1] > 3 * plain[0]


def test_a_layer_in_chunks_is_the_layer():
    layer, x = nn.Linear(4, 4), torch.randn(2, 7, 4)
    sizes = []
    layer.register_forward_hook(lambda module, args, out: sizes.append(out.shape[1]))
    assert torch.allclose(in_chunks(layer, x, 3), in_chunks(layer, x, 0), atol=1e-6)
    assert sizes == [3, 3, 1, 7]


def model(layers: int = 3, chunk: int = 0) -> VariantDecoder:
    torch.manual_seed(0)
    config = VariantConfig(
        "reformer", 13, context=64, layers=layers, heads=2, width=16, reversible=True, feed_forward_chunk=chunk,
        options={"buckets": 4, "chunk": 4},
    )  # fmt: skip
    return VariantDecoder(config)


def test_a_reversible_decoder_trains_as_it_runs():
    module, ids = model(chunk=5), torch.randint(13, (2, 17), generator=torch.Generator().manual_seed(0))
    known = list(module.parameters())
    grads = [torch.autograd.grad(mode()(ids).logsumexp(-1).sum(), known) for mode in (module.train, module.eval)]
    assert torch.allclose(module.train()(ids), module.eval()(ids), atol=1e-6)
    for ours, wanted in zip(*grads, strict=True):
        assert torch.allclose(ours, wanted, atol=1e-4 * float(wanted.abs().max()) + 1e-6)


@pytest.mark.parametrize("chunks", [(1,) * 17, (9, 8)], ids=len)
def test_steps_of_two_streams_are_the_forward(chunks):
    assert_steps_are_the_forward(model().eval(), some_ids(17, 2), chunks)


def test_no_leak_is_found():
    report = check(model(2).eval(), masks.Causal(), step=lambda module, ids, cache: module.step(ids, cache))
    assert report.ok, report
