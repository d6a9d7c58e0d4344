"""performer-pytorch: its weights, read off its outputs on values that single out one key."""

import pytest
import torch

from headwise import capture, edits, masks, wrap
from headwise.interp.run.capture import rerun

library = pytest.importorskip("performer_pytorch")

HEADS, LENGTH = 4, 70  # more than half a chunk of its causal loop; see below for more than one
IDS = torch.randint(3, 99, (2, LENGTH), generator=torch.Generator().manual_seed(0))
KINDS = {"softmax": {}, "relu": {"generalized_attention": True}, "none": {"no_projection": True}}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 40, 200])
def test_weights_are_what_it_does_to_single_values(causal, kind, length):
    torch.manual_seed(0)
    inner = library.FastAttention(8, nb_features=16, causal=causal, **KINDS[kind]).eval()
    module = torch.nn.ModuleDict({"fast": inner})
    module.forward = lambda q, k, v: inner(q, k, v)
    q, k = torch.randn(2, 2, HEADS, length, 8)
    one = torch.eye(length).expand(2, HEADS, -1, -1)  # the output is the matrix of weights
    cap = capture(wrap(module, kind="custom"), {"q": q, "k": k, "v": one})
    (call,) = cap.calls
    wanted = inner(q, k, one)
    assert not cap.unseen and call.mask == (masks.Causal() if causal else masks.Bidirectional())
    for head in range(HEADS):
        assert torch.allclose(call.weights(head), wanted[:, head], atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_a_performer_lm_is_captured_and_edited(causal):
    torch.manual_seed(0)
    module = library.PerformerLM(
        num_tokens=99, max_seq_len=128, dim=32, depth=2, heads=HEADS, dim_head=8, causal=causal, nb_features=16
    ).eval()
    cap = capture(wrap(module, kind="decoder"), {"x": IDS})
    assert not cap.unseen and len(cap.calls) == 2 and cap.fidelity == 0
    off = [rerun(cap, [edits.ZeroHead(1, 0)]), rerun(cap, [edits.Zero(edits.Pattern(1, 0))])]
    module.performer.net.layers[1][0].fn.to_out.weight.data[:, :8] = 0
    wanted = module(IDS)
    for edited in off:
        assert torch.allclose(edited.logits, wanted, atol=1e-4)
    assert not torch.allclose(cap.logits, wanted, atol=1e-3)
