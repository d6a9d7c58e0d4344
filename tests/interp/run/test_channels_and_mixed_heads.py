"""What a softmax is over, and what is done to it before it meets the values: channels are no positions, mixed heads are
what meets the values, and a softmax that is lost says why.

The modules are written after their papers and their authors' code; B, N, C, H and D all differ.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise.interp.errors import InputError
from headwise.interp.masks import Window
from headwise.interp.run.capture import capture, rerun
from headwise.interp.run.edits import ForbidEdge, ReplaceMask, ZeroHead
from headwise.interp.subject import Subject, tensors_only

B, N, H, D = 2, 10, 4, 6
C = H * D
OVER_CHANNELS = "its softmax is over channels, not positions"


def run(module, **inputs):
    return capture(Subject(module.eval(), tensors_only(module), type(module).__name__, "custom"), inputs)


def every_head(call):
    return torch.stack([call.weights(head) for head in range(call.heads)], 1)


# -- channels --------------------------------------------------------------------------------------


class XCA(nn.Module):
    """XCiT's cross-covariance attention (El-Nouby et al. 2021, §3.2): (B, N, C) in and out."""

    def __init__(self, fused=False, heads=H, width=C):
        super().__init__()
        self.qkv, self.fused, self.heads = nn.Linear(width, 3 * width), fused, heads

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 4, 1)  # (B, H, D, N)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v, scale=1.0).flatten(1, 2).mT
        return ((q @ k.mT).softmax(-1) @ v).flatten(1, 2).mT


class DaViTChannels(nn.Module):
    """Channel group attention (Ding et al. 2022, §3.2), as in its code: queries and keys change places."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C)

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(B, N, 3, H, D).permute(2, 0, 3, 1, 4)
        attention = (k * D**-0.5).transpose(-1, -2) @ v
        return (attention.softmax(-1) @ q.transpose(-1, -2)).transpose(-1, -2).transpose(1, 2).reshape(B, N, C)


class MDTA(nn.Module):
    """Restormer's transposed attention (Zamir et al. 2022, §3.1): (B, C, height, width) in and out."""

    def __init__(self, heads=H):
        super().__init__()
        self.qkv, self.heads = nn.Conv2d(C, 3 * C, 1), heads

    def forward(self, x):
        q, k, v = self.qkv(x).flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)  # (B, H, D, height · width)
        return ((q @ k.mT).softmax(-1) @ v).flatten(1, 2).view_as(x)


class ChannelAttentionModule(nn.Module):
    """DANet's (Fu et al. 2019, §3.3): one head, no weights of its own."""

    def forward(self, x):
        flat = x.flatten(2)
        energy = torch.bmm(flat, flat.mT)
        return torch.bmm((energy.amax(-1, keepdim=True) - energy).softmax(-1), flat).view_as(x)


class EfficientAttention(nn.Module):
    """Two softmaxes that never make positions × positions (Shen et al. 2021, §3.2)."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, H, D)).permute(2, 0, 3, 1, 4)  # (B, H, N, D)
        return (q.softmax(-1) @ (k.softmax(-2).mT @ v)).transpose(1, 2).flatten(2)


CHANNELS = {
    "xcit": (XCA(), (B, N, C)),
    "xcit, fused": (XCA(fused=True), (B, N, C)),
    "xcit, one head": (XCA(heads=1), (B, N, C)),
    "davit": (DaViTChannels(), (B, N, C)),
    "restormer": (MDTA(), (B, C, 2, 5)),
    "danet": (ChannelAttentionModule(), (B, C, 2, 5)),
    "efficient": (EfficientAttention(), (B, N, C)),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_channels_are_no_positions(name):
    module, shape = CHANNELS[name]
    cap = run(nn.Sequential(nn.Identity(), module), input=torch.randn(shape))
    assert not cap.calls
    assert [(u.name, u.reason) for u in cap.unseen] == [("1", OVER_CHANNELS)]


class TwoKinds(nn.Module):
    """A block of DaViT: attention over positions, then over channels."""

    def __init__(self):
        super().__init__()
        self.positions, self.channels = nn.MultiheadAttention(C, H, batch_first=True), XCA()

    def forward(self, x):
        return self.channels(x + self.positions(x, x, x)[0])


def test_what_is_over_positions_beside_it_is_seen():
    cap = run(TwoKinds(), x=torch.randn(B, N, C))
    assert [(c.name, c.shape) for c in cap.calls] == [("positions", (B, H, N, N))]
    assert [(u.name, u.reason) for u in cap.unseen] == [("channels", OVER_CHANNELS)]


class Positions(nn.Module):
    """softmax(q kᵀ) v where keys and queries come from wherever the test says; weights are kept to compare with."""

    def __init__(self, queries, keys, heads=H, width=C):
        super().__init__()
        self.q, self.kv, self.heads = nn.Linear(width, width), nn.Linear(width, 2 * width), heads
        self.queries, self.keys = queries, keys

    def forward(self, x):
        heads = (self.heads, -1)
        q = self.q(self.queries(self, x)).unflatten(-1, heads).transpose(-2, -3)
        k, v = self.kv(self.keys(self, x)).unflatten(-1, (2, *heads)).movedim(-3, 0).transpose(-2, -3)
        self.made = (q @ k.mT).softmax(-1)
        return (self.made @ v).transpose(-2, -3).flatten(-2)


class Latents(Positions):
    """Perceiver (Jaegle et al. 2021, §3.1) with as many latents as a head is wide, so that heads × queries = C."""

    def __init__(self):
        super().__init__(lambda self, x: self.latents.expand(len(x), -1, -1), lambda self, x: x)
        self.latents = nn.Parameter(torch.randn(1, D, C))


def everything(self, x):
    return x


def windows(self, x):
    """(B, 4 · 4, C) → (B · 4, 2 · 2, C), as in Swin (Liu et al. 2021, §3.2)."""
    return x.view(B, 2, 2, 2, 2, C).transpose(2, 3).reshape(B * 4, 4, C)


POSITIONS = {
    "square: as many positions as a head is wide": (Positions(everything, everything), (B, D, C)),
    "one head, as many positions as channels": (Positions(everything, everything, heads=1), (B, C, C)),
    "one head": (Positions(everything, everything, heads=1), (B, N, C)),
    "one query": (Positions(lambda self, x: x[:, :1], everything), (B, N, C)),
    "keys reduced to as many as a head is wide": (Positions(everything, lambda self, x: x[:, :D]), (B, N, C)),
    "latents": (Latents(), (B, N, C)),
    "windows": (Positions(windows, windows), (B, 16, C)),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_are_no_channels(name):
    module, shape = POSITIONS[name]
    (call,) = run(module, x=torch.randn(shape)).calls
    torch.testing.assert_close(every_head(call), module.made.detach())


class ConvolutionalPositions(nn.Module):
    """One head over the positions of (B, C, N): the same numbers as channels of (B, N, C), and other layers."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Conv1d(C, 3 * C, 1)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, 1)
        self.made = (q.mT @ k).softmax(-1)
        return (self.made @ v.mT).mT


def test_positions_that_come_last_are_no_channels():
    module = ConvolutionalPositions()
    (call,) = run(module, x=torch.randn(B, C, N)).calls
    torch.testing.assert_close(call.weights(0), module.made.detach())


# -- heads mixed after the softmax -----------------------------------------------------------------


class Talking(nn.Module):
    """Talking-heads attention (Shazeer et al. 2020, §3): ``mix`` maps the heads after the softmax."""

    def __init__(self, mix, into=H, dropout=0.0):
        super().__init__()
        self.qkv, self.mix, self.into = nn.Linear(C, 3 * C), mix, into
        self.linear, self.conv = nn.Linear(H, into), nn.Conv2d(H, into, 1)
        self.matrix = nn.Parameter(torch.randn(H, into))
        self.dropout = nn.Dropout(dropout)
        for parameter in (self.linear.weight, self.conv.weight):
            nn.init.normal_(parameter)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, H, D)).permute(2, 0, 3, 1, 4)
        self.before = (q @ k.mT / D**0.5).softmax(-1)
        v = v if self.into == H else v.mean(1, keepdim=True).expand(-1, self.into, -1, -1)
        return (self.dropout(self.mix(self, self.before)) @ v).transpose(1, 2).flatten(2)


def by_linear(self, a):
    """CaiT's (Touvron et al. 2021), as in its code."""
    return self.linear(a.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def by_convolution(self, a):
    return self.conv(a)


def by_einsum(self, a):
    """DeepViT's re-attention (Zhou et al. 2021, §4)."""
    return torch.einsum("bhij,hg->bgij", a, self.matrix)


def by_matmul(self, a):
    return (a.permute(0, 2, 3, 1) @ self.matrix).permute(0, 3, 1, 2)


def mixed_by_hand(module, mix):
    matrix, bias = {
        by_linear: (module.linear.weight.T, module.linear.bias),
        by_convolution: (module.conv.weight[:, :, 0, 0].T, module.conv.bias),
    }.get(mix, (module.matrix, torch.zeros(module.into)))
    return sum(module.before[:, h, None] * matrix[h, :, None, None] for h in range(H)) + bias[:, None, None]


@pytest.mark.parametrize("into", [H, 3])
@pytest.mark.parametrize("mix", [by_linear, by_convolution, by_einsum, by_matmul], ids=lambda f: f.__name__)
def test_mixed_heads_are_what_meets_the_values(mix, into):
    module = Talking(mix, into)
    cap = run(nn.Sequential(module), input=torch.randn(B, N, C))
    (call,) = cap.calls
    assert not cap.unseen and call.shape == (B, into, N, N)
    with torch.no_grad():
        expected = mixed_by_hand(module, mix)
    assert (expected - module.before[:, :1]).abs().max() > 0.1  # nothing like the weights before the heads were mixed
    torch.testing.assert_close(every_head(call), expected)
    assert call.empty_rows().sum() == 0


def test_single_keys_of_mixed_heads_cannot_be_edited():
    plain = run(Talking(by_linear), x=torch.randn(1, N, C))
    for edit in (ForbidEdge(0, query=3, key=2), ReplaceMask(0, Window(1, 1))):
        with pytest.raises(InputError, match="mixes its heads"):
            rerun(plain, [edit])
    assert (rerun(plain, [ZeroHead(0, 1)]).logits[..., D : 2 * D] == 0).all()


def test_weights_are_those_before_dropout_and_after_scaling():
    """Turned, scaled and turned back: what meets the values, not what the softmax made."""

    class Attention(nn.Module):
        def forward(self, q, k, v):
            weights = ((q @ k.mT).softmax(-1).mT * torch.arange(1.0, 8)[:, None]).mT
            return F.dropout(weights, 0.5, training=True) @ v

    q, k, v = torch.randn(B, H, N, D), torch.randn(B, H, 7, D), torch.randn(B, H, 7, D)
    (call,) = run(Attention(), q=q, k=k, v=v).calls
    torch.testing.assert_close(every_head(call), (q @ k.mT).softmax(-1) * torch.arange(1.0, 8))


# -- why it is lost --------------------------------------------------------------------------------


def cut_into_bands(self, q, k, v):
    weights = (q @ k.mT).softmax(-1)
    return weights[..., :4] @ v[..., :4, :] + weights[..., 4:] @ v[..., 4:, :]


def in_blocks(self, q, k, v):
    q, k, v = (t.unflatten(2, (2, 5)) for t in (q, k, v))
    return (q @ k.mT).softmax(-1) @ v


def difference_of_two(self, q, k, v):
    """Differential attention (Ye et al. 2024, §2.1)."""
    return ((q @ k.mT).softmax(-1) - 0.2 * (k @ q.mT).softmax(-1)) @ v


def never_met(self, q, k, v):
    return v + (q @ k.mT).softmax(-1).amax(-1, keepdim=True)


def mixed_and_kept(self, q, k, v):
    return v + F.linear((q @ k.mT).softmax(-1).permute(0, 2, 3, 1), torch.randn(3, H)).sum((1, 2))[:, :1, None, None]


REASONS = {
    cut_into_bands: "block-sparse, banded or bucketed",
    in_blocks: "block-sparse, banded or bucketed",
    difference_of_two: "more than one softmax",
    never_met: "never met values",
    mixed_and_kept: "heads are mixed after the softmax",
}


@pytest.mark.parametrize("way", REASONS, ids=lambda f: f.__name__)
def test_a_lost_softmax_says_why(way):
    class Attention(nn.Module):
        forward = way

    cap = run(Attention(), **{name: torch.randn(B, H, N, D) for name in "qkv"})
    assert not cap.calls
    (unseen,) = cap.unseen
    assert REASONS[way] in unseen.reason


def test_a_pooling_beside_attention_does_not_hide_it():
    """Keys that a softmax has pooled, as DeepSeek-V4's compressor does: the attention over them is whole."""

    class Attention(nn.Module):
        def forward(self, q, k, v):
            pooled = (k.unflatten(2, (5, 2)) * v.unflatten(2, (5, 2)).softmax(3)).sum(3)
            return (q @ pooled.mT).softmax(-1) @ pooled

    q, k, v = (torch.randn(B, H, N, D) for _ in "qkv")
    (call,) = run(Attention(), q=q, k=k, v=v).calls
    assert call.shape == (B, H, N, 5)
