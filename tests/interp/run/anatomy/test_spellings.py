"""One residual stream in many spellings: found, proven, read on another length; what is no sum of writes is refused."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise.interp.run.anatomy import anatomy, read
from headwise.interp.run.capture import capture
from headwise.interp.subject import Inputs
from headwise.models import wrap
from tests.interp.run.anatomy import made
from tests.interp.run.anatomy.made import LAYERS, C, V

ALIKE = {
    name: (getattr(made, name), {})
    for name in (
        "plain", "written_first", "in_place", "in_place_method", "subtracted", "parallel", "parallel_sum",
        "parallel_in_place", "layer_scale", "post_norm", "deep_norm", "sandwich", "checkpointed", "looped",
        "own_function",
    )
} | {
    "rms_by_hand": (made.plain, {"norm": made.HandRMS}),
    "no_final_norm": (made.plain, {"final": False}),
    "soft_cap": (made.plain, {"after": lambda logits: 5 * torch.tanh(logits / 5)}),
    "scaled": (made.plain, {"after": lambda logits: logits * 0.25}),
}  # fmt: skip
STYLES = {"post_norm": "post-LN", "deep_norm": "post-LN", "sandwich": "pre+post-norm", "parallel": "pre-LN, parallel",
          "parallel_sum": "pre-LN, parallel", "parallel_in_place": "pre-LN, parallel"}  # fmt: skip


@pytest.mark.parametrize("name", ALIKE)
def test_it_is_found_and_proven_and_holds_on_another_length(name):
    step, options = ALIKE[name]
    net = made.made(step, **options)
    subject = wrap(net)
    found = anatomy(subject, made.ids())
    assert not found.refused and len(found.streams) == 1 and found.proof.exact and found.proof.worst <= 1e-5
    stream = found.stream()
    assert Counter(w.kind for w in stream.writes) == {"attention": LAYERS, "mlp": LAYERS}
    assert sorted(w.block for w in stream.writes) == sorted([0, 1, 2] * 2) and len(stream.blocks) == LAYERS
    assert stream.style == STYLES.get(name, "pre-LN") and found.readout.kind == "direct"
    assert all(w.heads for w in stream.writes if w.kind == "attention") and found.proof.smallest > 1e-3

    other = Inputs(made.ids(3, 9, seed=8))
    reading = read(subject, other, found)
    assert torch.equal(reading.output, net(**other.kwargs))  # reading changes nothing, bit for bit
    assert reading.proof.exact and reading.proof.total <= 1e-5
    assert reading.embedding().shape == (3, 9, C) and len(reading.states()) == len({w.after for w in stream.writes}) + 1
    logits = reading.unembed(reading.states()[-1])
    assert torch.equal(logits, reading.output)


def hooked(net, ids):
    """What the attentions and MLPs of ``net`` return, by plain forward hooks."""
    seen = {}
    hooks = [
        module.register_forward_hook(lambda m, given, out, key=key: seen.__setitem__(key, out.clone()))
        for kind, modules in (("attention", net.at), ("mlp", net.ff))
        for key, module in (((kind, i), module) for i, module in enumerate(modules))
    ]
    net(ids)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("name", ["plain", "in_place", "parallel_sum", "parallel_in_place", "post_norm"])
def test_writes_are_what_forward_hooks_see(name):
    net = made.made(*ALIKE[name][:1], **ALIKE[name][1])
    subject, inputs = wrap(net), Inputs(made.ids(2, 11, seed=5))
    reading = read(subject, inputs, anatomy(subject, made.ids()))
    seen = hooked(net, inputs.kwargs["ids"])
    writes = {(w.kind, w.block): t for w, t in reading.writes()}
    assert writes.keys() == seen.keys()
    for key, theirs in seen.items():
        assert torch.equal(writes[key], theirs)


def test_the_sign_and_the_factor_of_a_write():
    net = made.made(made.subtracted)
    subject, inputs = wrap(net), Inputs(made.ids(2, 11, seed=5))
    reading = read(subject, inputs, anatomy(subject, made.ids()))
    seen = hooked(net, inputs.kwargs["ids"])
    for write, tensor in reading.writes():
        factor = -1.0 if write.kind == "attention" else 0.5
        assert write.sign == factor and torch.equal(tensor, factor * seen[write.kind, write.block])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("slice_written", "no residual addition"),
        ("highway", "no residual addition"),
        ("fused", "enters no residual addition"),
        ("stacked", "enters no residual addition"),
        ("whole_block", "x + block(x)"),
        ("hidden_write", "no residual addition"),
        ("no_attention", "no attention and nothing like it"),
    ],
)
def test_what_is_no_sum_of_writes_is_refused_with_its_reason(name, reason):
    found = anatomy(wrap(made.made(getattr(made, name))), made.ids())
    assert not found.streams and found.readout is None
    assert any(reason in sentence for sentence in found.refused) and all(s.endswith(".") for s in found.refused)


def test_an_attention_behind_a_nonlinearity_is_mixed_and_has_no_heads():
    """As in MobileBERT, whose feed-forward layers lie inside the write of the attention."""
    found = anatomy(wrap(made.made(made.mixed)), made.ids())
    kinds = Counter(w.kind for w in found.stream().writes)
    assert kinds == {"mixed": LAYERS, "mlp": LAYERS} and not any(w.heads for w in found.stream().writes)
    assert len(found.refused) == LAYERS and "not linear" in found.refused[0]


def test_what_torchscript_hides_is_a_write_of_unknown_kind():
    found = anatomy(wrap(made.made(made.plain, mlp=made.Scripted)), made.ids())
    assert Counter(w.kind for w in found.stream().writes) == {"attention": LAYERS, "other": LAYERS}
    assert found.proof.worst <= 1e-5


# -- torch's own layers, and other layouts ----------------------------------------------------------------------------
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_torch_encoder(batch_first, norm_first):
    layer = nn.TransformerEncoderLayer(C, 4, 48, batch_first=batch_first, norm_first=norm_first)
    net = made.disturbed(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False))
    subject, x = wrap(net), torch.randn(2, 10, C)
    given = x if batch_first else x.transpose(0, 1).contiguous()
    found = anatomy(subject, Inputs({"src": given}))
    stream = found.stream()
    assert Counter(w.kind for w in stream.writes) == {"attention": 3, "mlp": 3}
    assert stream.style == ("pre-LN" if norm_first else "post-LN") and found.proof.worst <= 1e-5
    assert stream.blocks == ("layers.0", "layers.1", "layers.2") and all(w.heads for w in stream.writes if w.calls)
    reading = read(subject, Inputs({"src": given}), found)
    states = []
    for module in net.layers:
        module.register_forward_hook(lambda m, a, out: states.append(out))
    net(given)
    for ours, theirs in zip(reading.blocks()[1:], states, strict=True):
        torch.testing.assert_close(ours.reshape(theirs.shape), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm_first", [True, False])
def test_torch_encoder_decoder(norm_first):
    net = nn.Transformer(C, 4, 2, 2, 48, batch_first=True, norm_first=norm_first)
    subject = wrap(made.disturbed(net), kind="encoder-decoder")
    found = anatomy(subject, {"src": torch.randn(2, 9, C), "tgt": torch.randn(2, 7, C)})
    assert [s.name for s in found.streams] == ["decoder", "encoder"]
    assert Counter(w.kind for w in found.stream("decoder").writes) == {"attention": 2, "cross": 2, "mlp": 2}
    assert Counter(w.kind for w in found.stream("encoder").writes) == {"attention": 2, "mlp": 2}
    assert found.proof.worst <= 1e-5 and found.readout.kind == "none"


class TimeFirst(nn.Module):
    """(T, B, C) inside, as fairseq has it."""

    def __init__(self):
        super().__init__()
        self.net = made.made(made.plain)

    def forward(self, ids):
        net, x = self.net, (self.net.embed(ids) + self.net.place[: ids.shape[1]]).transpose(0, 1)
        for i in range(LAYERS):
            x = x + net.at[i](net.n1[i](x).transpose(0, 1)).transpose(0, 1)
            x = x + net.ff[i](net.n2[i](x))
        return net.head(net.final(x)).transpose(0, 1)


class Flat(TimeFirst):
    """Batch and positions in one axis."""

    def forward(self, ids):
        net, shape = self.net, (*ids.shape, C)
        x = (net.embed(ids) + net.place[: ids.shape[1]]).flatten(0, 1)
        for i in range(LAYERS):
            x = x + net.at[i](net.n1[i](x).view(shape)).flatten(0, 1)
            x = x + net.ff[i](net.n2[i](x))
        return net.head(net.final(x)).view(*ids.shape, V)


@pytest.mark.parametrize(("cls", "order"), [(TimeFirst, "tbc"), (Flat, "btc")])
def test_other_layouts_give_the_same_reading(cls, order):
    """The same weights in another layout: states and writes as (B, T, C) are those of the plain one."""
    net = cls().eval().requires_grad_(False)
    inputs, plain = Inputs(made.ids(2, 11, seed=5)), wrap(net.net)
    theirs = read(plain, inputs, anatomy(plain, made.ids()))
    subject = wrap(net)
    found = anatomy(subject, made.ids())
    assert found.stream().layout.order == order and found.proof.worst <= 1e-5
    ours = read(subject, inputs, found)
    for a, b in zip(ours.states(), theirs.states(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    for (_, a), (_, b) in zip(ours.writes(), theirs.writes(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.unembed(ours.states()[3]), theirs.unembed(theirs.states()[3]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.heads(found.stream().writes[0]), theirs.heads(theirs.anatomy.stream().writes[0]),
                               atol=1e-5, rtol=1e-4)  # fmt: skip


def test_heads_are_columns_of_the_output_projection():
    """By hand: head h adds its slice of z times its slice of the weight; the constant is the bias."""
    net = made.made(made.plain)
    subject, inputs = wrap(net), Inputs(made.ids(2, 11, seed=5))
    found = anatomy(subject, made.ids())
    reading = read(subject, inputs, found)
    z = capture(subject, inputs).calls[1].out  # (B, H, T, D)
    branch = found.stream().writes[2]
    for head, weight in enumerate(net.at[1].out.weight.split(C // made.H, 1)):
        theirs = F.linear(z[:, head], weight)
        torch.testing.assert_close(reading.head(branch, head), theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reading.constant(branch)[0, 0], net.at[1].out.bias, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        reading.heads(branch).sum(2) + reading.constant(branch), reading.write(branch), atol=1e-5, rtol=1e-5
    )
