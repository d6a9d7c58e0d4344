"""Each edit at each site of an attention against the same computation by formula, however attention is written."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise.interp.errors import InputError
from headwise.interp.masks import Causal
from headwise.interp.run.acting import read_sites
from headwise.interp.run.capture import Capture, capture, rerun
from headwise.interp.run.edits import (
    Add,
    HeadOutput,
    Isolate,
    Key,
    Mean,
    MeanHead,
    Pattern,
    Query,
    Replace,
    Resample,
    Scale,
    Scores,
    Value,
    Zero,
    ZeroHead,
)
from headwise.interp.subject import Subject, tensors_only
from tests.interp.run.test_edits import WAYS, B, C, D, H, Model, T, by_hand, by_sdpa, by_sdpa_with_a_bias

HIDDEN = ~Causal().dense(T)
VECTOR = torch.linspace(-1, 1, T)  # as long as a row of weights; cut to D for the others
HEAD = 1
BY_HAND = {w for w in WAYS if "sdpa" not in w.__name__}


def by_flex(q, k, v):
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention(q, k, v, score_mod=lambda s, b, h, query, key: torch.where(query >= key, s, -math.inf))


def run(model, x) -> Capture:
    return capture(Subject(model.eval(), tensors_only(model), "model", "decoder"), {"x": x})


def by_formula(model, x, site, change):
    """The run with one part (B, T, width) of head 1 of layer 1 changed."""
    part, head = type(site), HEAD
    for number, layer in enumerate(model.layers):
        q, k, v = layer.project(x)

        def done(here, t, number=number):
            if number == 0 or here is not part:
                return t
            return torch.cat([t[:, :head], change(t[:, head])[:, None], t[:, head + 1 :]], 1)

        q, k, v = done(Query, q), done(Key, k), done(Value, v)
        scores = (q @ k.mT / D**0.5).masked_fill(HIDDEN, -math.inf)
        weights = done(Pattern, done(Scores, scores).masked_fill(HIDDEN, -math.inf).softmax(-1))
        out = done(HeadOutput, weights @ v)
        x = x + layer.out(out.transpose(1, 2).reshape(B, T, C))
    return x


def mean(x):
    seen = x > -math.inf
    return (torch.where(seen, x, 0).sum(1, keepdim=True) / seen.sum(1, keepdim=True)).expand_as(x)


def at(positions, change):
    def some(x):
        new = x.clone()
        new[:, positions] = change(x)[:, positions]
        return new

    return some


def fitting(x):
    return VECTOR[: x.shape[-1]]


EDITS = {
    "zero": (Zero, lambda x: x * 0),
    "zero somewhere": (lambda s: Zero(s, positions=(1, -1)), at([1, T - 1], torch.zeros_like)),
    "mean": (Mean, mean),
    "mean somewhere": (lambda s: Mean(s, 2), at([2], mean)),
    "scale": (lambda s: Scale(s, -0.5), lambda x: x * -0.5),
    "add": (lambda s: Add(s, VECTOR[: width(s)], [0, 3]), at([0, 3], lambda x: x + fitting(x))),
    "replace": (lambda s: Replace(s, VECTOR[: width(s)]), lambda x: fitting(x).expand_as(x)),
}


def width(site):
    return T if isinstance(site, Pattern | Scores) else D


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("way", [*WAYS, by_flex], ids=lambda f: f.__name__)
@pytest.mark.parametrize("site", [HeadOutput, Pattern, Scores, Query, Key, Value])
def test_edits_at_sites(site, way):
    model, x = Model(way), torch.randn(B, T, C)
    cap, here = run(model, x), site(1, HEAD)
    for name, (edit, change) in EDITS.items():
        if site in (Query, Key) and way in BY_HAND:
            with pytest.raises(InputError, match="written by hand"):
                rerun(cap, [edit(here)])
            continue
        if name == "zero":  # also of hidden scores, which stay hidden
            change = torch.zeros_like
        with torch.no_grad():
            expected = by_formula(model, x, here, change)
        assert (expected - cap.logits).abs().max() > 1e-4, name
        torch.testing.assert_close(rerun(cap, [edit(here)]).logits, expected, atol=1e-5, rtol=1e-5, msg=f"{name} {way}")


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("way", [*WAYS, by_flex], ids=lambda f: f.__name__)
def test_an_edit_that_changes_nothing_changes_no_bit(way):
    cap = run(Model(way), torch.randn(B, T, C))
    sites = [HeadOutput(0, 1), Pattern(0, 2), Scores(1, 0), Value(1, 2)]
    sites += [] if way in BY_HAND else [Query(0, 0), Key(1, 1)]
    assert torch.equal(rerun(cap, [Scale(site, 1.0) for site in sites]).logits, cap.logits)
    assert torch.equal(rerun(cap, []).logits, cap.logits)


@pytest.mark.parametrize("way", WAYS, ids=lambda f: f.__name__)
def test_a_site_read_is_what_the_capture_shows(way):
    cap = run(Model(way), torch.randn(B, T, C))
    found = read_sites(cap, [Pattern(1, 2), Scores(0, 1), HeadOutput(1, 0), Value(0, 2)])
    torch.testing.assert_close(found[Pattern(1, 2)], cap.find(1).weights(2))
    seen = found[Scores(0, 1)].masked_fill(HIDDEN, 0)
    torch.testing.assert_close(seen, cap.find(0).scores(1).masked_fill(HIDDEN, 0))
    torch.testing.assert_close(found[HeadOutput(1, 0)], cap.find(1).out[:, 0])
    assert torch.equal(found[Value(0, 2)], cap.find(0).v[:, 2])


@pytest.mark.parametrize("way", [by_sdpa, by_sdpa_with_a_bias, *sorted(BY_HAND, key=str)], ids=lambda f: f.__name__)
def test_gradients_are_those_of_central_differences(way):
    """Also where no parameter has a gradient."""
    model = Model(way).double().requires_grad_(False)
    cap = run(model, torch.randn(B, T, C, dtype=torch.float64))
    sites = [HeadOutput(0, 1), Pattern(0, 2), Scores(1, 0), Value(0, 2)]
    sites += [] if way in BY_HAND else [Query(0, 0), Key(1, 1)]

    def number(logits):
        return (logits[:, -1] ** 2).sum()

    values, gradients = read_sites(cap, sites, of=number)
    for site in sites:
        step = torch.randn_like(values[site]).masked_fill(~values[site].isfinite(), 0)
        up, down = (number(rerun(cap, [Add(site, sign * 1e-5 * step)]).logits) for sign in (1, -1))
        assert float((gradients[site] * step).sum()) == pytest.approx(float(up - down) / 2e-5, rel=1e-6, abs=1e-8)


def test_grouped_queries_share_a_key_and_a_value():
    class Grouped(nn.Module):
        def forward(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    q, k, v = torch.randn(1, 4, T, D), torch.randn(1, 2, T, D), torch.randn(1, 2, T, D)
    module = Grouped()
    cap = capture(Subject(module, tensors_only(module), "m", "decoder"), {"q": q, "k": k, "v": v})
    without = v.clone()
    without[:, 1] = 0
    expected = F.scaled_dot_product_attention(q, k.repeat_interleave(2, 1), without.repeat_interleave(2, 1))
    torch.testing.assert_close(rerun(cap, [Zero(Value(0, 1))]).logits, expected)
    weights = (q @ k.repeat_interleave(2, 1).mT / D**0.5).softmax(-1)
    weights[:, 3] = weights[:, 3].flip(-1)
    patched = rerun(cap, [Replace(Pattern(0, 3), weights[:, 3])])
    torch.testing.assert_close(patched.logits, weights @ v.repeat_interleave(2, 1))
    torch.testing.assert_close(patched.find(0).weights(3), weights[:, 3])  # and the edited run shows it
    with pytest.raises(InputError, match=r"key/value heads 0 … 1\."):
        rerun(cap, [Zero(Key(0, 2))])


@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention(need_weights):
    mha, x = nn.MultiheadAttention(C, H, batch_first=True).eval(), torch.randn(B, T, C)
    inputs = {"query": x, "key": x, "value": x, "need_weights": need_weights}
    cap = capture(Subject(mha, tensors_only(mha), "mha", "encoder"), inputs)
    with torch.no_grad():
        q, k, v = F.linear(x, mha.in_proj_weight, mha.in_proj_bias).view(B, T, 3, H, D).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT / D**0.5).softmax(-1)
        weights[:, 2, 1] = 0
        v[:, 0] *= 2
        expected = mha.out_proj((weights @ v).transpose(1, 2).reshape(B, T, C))
    found = rerun(cap, [Zero(Pattern(0, 2), 1), Scale(Value(0, 0), 2)]).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_padding_does_not_count():
    """Means are over real positions; what is drawn at random is a real position."""

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Model(by_sdpa).layers[0]

        def forward(self, x, attention_mask):
            return self.layer(x)

    module, x = Padded(), torch.randn(B, T, C)
    real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    subject = Subject(module.eval(), tensors_only(module), "m", "encoder")
    cap = capture(subject, {"x": x, "attention_mask": real})
    z = read_sites(cap, [HeadOutput(0, 1)])[HeadOutput(0, 1)]
    mean, drawn = (
        read_sites(rerun(cap, [edit]), [HeadOutput(0, 1)])[HeadOutput(0, 1)]
        for edit in (MeanHead(0, 1), Resample(HeadOutput(0, 1), seed=3))
    )
    torch.testing.assert_close(mean[1], z[1, :2].mean(0).expand(T, D))
    torch.testing.assert_close(mean[0], z[0].mean(0).expand(T, D))
    for row in range(B):
        for position in range(T):
            sources = [p for p in range(T) if torch.equal(drawn[row, position], z[row, p])]
            assert len(sources) == 1 and real[row, sources[0]] and sources[0] != position
    again = rerun(cap, [Resample(HeadOutput(0, 1), seed=3)])
    assert torch.equal(read_sites(again, [HeadOutput(0, 1)])[HeadOutput(0, 1)], drawn)


def test_a_pattern_is_swapped_between_two_inputs():
    model = Model(by_sdpa)
    one, other = (run(model, torch.randn(B, T, C)) for _ in range(2))
    swapped = rerun(one, [Resample(Pattern(1, 2), other)])
    torch.testing.assert_close(swapped.find(1).weights(2), other.find(1).weights(2))
    q, k, v = model.layers[1].project(one.inputs.kwargs["x"] + model.layers[0](one.inputs.kwargs["x"]))
    weights = (q @ k.mT / D**0.5).masked_fill(HIDDEN, -math.inf).softmax(-1)
    weights[:, 2] = other.find(1).weights(2)
    x = one.inputs.kwargs["x"] + model.layers[0](one.inputs.kwargs["x"])
    expected = x + model.layers[1].out((weights @ v).transpose(1, 2).reshape(B, T, C))
    torch.testing.assert_close(swapped.logits, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(rerun(one, [Resample(HeadOutput(0, 0), one)]).logits, one.logits)


def test_a_head_alone():
    cap = run(Model(by_hand), torch.randn(B, T, C))
    others = [ZeroHead(1, head) for head in range(H) if head != 2]
    torch.testing.assert_close(rerun(cap, [Isolate(1, 2)]).logits, rerun(cap, others).logits)
    all_heads = rerun(cap, [Zero(HeadOutput(1, None))]).logits
    torch.testing.assert_close(all_heads, rerun(cap, [ZeroHead(1, head) for head in range(H)]).logits)


@pytest.mark.parametrize(
    "edit, says",
    [
        (Zero(HeadOutput(2, 0)), r"layer this run has not: decoder has \[0, 1\]"),
        (Zero(Pattern(0, 3)), r"heads 0 … 2"),
        (Isolate(0, 7), r"heads 0 … 2"),
        (Zero(HeadOutput(0, 0, stack="cross")), "cross has"),
        (Zero(HeadOutput(0, 0), positions=5), r"positions 0 … 4; there is no 5"),
        (Add(HeadOutput(0, 0), torch.ones(D + 1)), r"vector of shape \(5,\); HeadOutput\(0, 0\) takes \(2, 5, 4\)"),
        (Replace(Value(0, 0), torch.ones(3, T, D)), r"shape \(3, 5, 4\)"),
        (Add(HeadOutput(0, 0), torch.ones(7, T, D)), r"shape \(7, 5, 4\)"),
    ],
    ids=str,
)
def test_edits_that_name_what_is_not_there(edit, says):
    cap = run(Model(by_sdpa), torch.randn(B, T, C))
    with pytest.raises(InputError, match=says):
        rerun(cap, [edit])
    assert torch.equal(rerun(cap, []).logits, cap.logits)


def test_a_longer_run_is_no_source():
    class Attention(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x)

    module = Attention()
    short, long = (run(module, torch.randn(1, H, length, D)) for length in (T, T + 2))
    with pytest.raises(InputError, match="cut into as many tokens"):
        rerun(short, [Resample(HeadOutput(0, 0), long)])


def test_edits_read_as_they_are_written():
    assert repr(Zero(HeadOutput(3, 1))) == "Zero(HeadOutput(3, 1))"
    assert repr(Scale(Pattern(3, 1, stack="cross"), 0.5, 4)) == "Scale(Pattern(3, 1, 'cross'), 0.5, (4,))"
    assert repr(Mean(Key(0, 0), positions=[1, 2])) == "Mean(Key(0, 0), (1, 2))"
    assert Zero(HeadOutput(3, 1)) == Zero(HeadOutput(3, 1)) != Zero(HeadOutput(3, 2))
