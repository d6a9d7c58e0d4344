"""Positions mix outside attention, or by a choice that looks at the whole sequence."""

import torch
import torch.nn.functional as F
from torch import nn

from headwise.interp.masks import Causal
from headwise.interp.zoo.case import VOCABULARY, WIDTH, Block, Case, Series

CAUSAL = {"expect": Causal()}


class NormOverTime(nn.Module):
    """LayerNorm over axes (time, features), or over features."""

    def __init__(self, over_time: bool):
        super().__init__()
        self.axes = (1, 2) if over_time else (2,)

    def forward(self, x):
        return (x - x.mean(self.axes, keepdim=True)) / (x.std(self.axes, keepdim=True) + 1e-5)


class Convolution(nn.Module):
    """Kernel 3, padded on the left – or on both sides."""

    def __init__(self, both_sides: bool):
        super().__init__()
        self.both_sides = both_sides
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1 if both_sides else 0)

    def forward(self, x):
        x = x.transpose(1, 2)
        return self.conv(x if self.both_sides else F.pad(x, (2, 0))).transpose(1, 2)


class WholeWindow(nn.Module):
    """A series normalised by mean and deviation of the whole window, or of the past."""

    def __init__(self, whole: bool):
        super().__init__()
        self.whole = whole
        self.block = Block()
        self.enter, self.leave = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 6)

    def forward(self, x):
        if self.whole:
            x = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5)
        else:
            n = torch.arange(1, x.shape[1] + 1)[None, :, None]
            x = x - x.cumsum(1) / n
        return self.leave(self.block(self.enter(x)))


class Recurrent(nn.Module):
    def __init__(self, both_ways: bool):
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, WIDTH // 2 if both_ways else WIDTH, batch_first=True, bidirectional=both_ways)

    def forward(self, x):
        return self.lstm(x)[0]


class Downsample(nn.Module):
    """Kernel 3, stride 2: output j stands at input 2j and needs two zeros before it; with one it reads 2j + 1."""

    def __init__(self, pads: int):
        super().__init__()
        self.pads = pads
        self.conv = nn.Conv1d(6, WIDTH, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x.transpose(1, 2), (self.pads, 2 - self.pads))).transpose(1, 2)


class Mixer(nn.Module):
    """A linear layer along time, masked to the past or not (MLP-Mixer)."""

    def __init__(self, whole: bool):
        super().__init__()
        self.masked = not whole
        self.weight = nn.Parameter(torch.randn(128, 128) / 8)

    def forward(self, x):
        weight = self.weight[: x.shape[1], : x.shape[1]]
        return torch.einsum("qk,bkc->bqc", weight.tril() if self.masked else weight, x)


class Buckets(nn.Module):
    """Tokens sorted by a hash and mixed within chunks (Reformer): which chunk a token falls in depends on all that
    follow.
    """

    def __init__(self, over_all: bool):
        super().__init__()
        self.over_all = over_all
        self.hash = nn.Linear(WIDTH, 1)

    def forward(self, x):
        if not self.over_all:
            return x * self.hash(x).sign()
        order = self.hash(x)[..., 0].argsort(1)
        rank = order.argsort(1)
        chunk = (rank // 4)[..., None]
        return x * (chunk + 1)


class ExpertsChoose(nn.Module):
    """Each expert takes its best tokens of the sequence (expert choice), or each token its best expert."""

    def __init__(self, experts_choose: bool):
        super().__init__()
        self.experts_choose = experts_choose
        self.router = nn.Linear(WIDTH, 3)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x):
        scores = self.router(x).softmax(-1)  # (B, T, E)
        if self.experts_choose:
            chosen = torch.zeros_like(scores)
            best = scores.topk(max(1, x.shape[1] // 3), dim=1).indices  # over time
            chosen.scatter_(1, best, 1.0)
        else:
            chosen = F.one_hot(scores.argmax(-1), 3).to(x.dtype)
        return sum(chosen[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


class Capacity(ExpertsChoose):
    """Experts with room for few tokens, given to the most confident of the sequence – or to the first come."""

    def forward(self, x):
        scores = self.router(x).softmax(-1)
        best, expert = scores.max(-1)  # (B, T)
        taken = F.one_hot(expert, 3).bool()  # (B, T, E)
        if self.experts_choose:
            order = best.argsort(1, descending=True)
            place = torch.gather(
                torch.gather(taken, 1, order[..., None].expand_as(taken)).long().cumsum(1),
                1,
                order.argsort(1)[..., None].expand_as(taken),
            )
        else:
            place = taken.long().cumsum(1)
        kept = taken & (place <= 3)
        return sum(kept[..., i : i + 1] * layer(x) for i, layer in enumerate(self.experts))


class Temporal(nn.Module):
    """Channels first, (B, C, T) → (B, C, T)."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.enter = nn.Conv1d(6, WIDTH, 1)
        self.norm = norm
        self.leave = nn.Conv1d(WIDTH, 6, 1)

    def forward(self, x):
        return self.leave(self.norm(self.enter(x)))


class ChannelNorm(nn.Module):
    def forward(self, x):
        return F.layer_norm(x.transpose(1, 2), (WIDTH,)).transpose(1, 2)


class Pooled(nn.Module):
    """Adds what the sequence is about: its mean, or the mean of the past."""

    def __init__(self, whole: bool):
        super().__init__()
        self.whole = whole

    def forward(self, x):
        past = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[None, :, None]
        return x.mean(1, keepdim=True).expand_as(x) if self.whole else past


class WithSummary(nn.Module):
    def __init__(self, whole: bool):
        super().__init__()
        self.embed, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.blocks = nn.ModuleList([Block()])
        self.summary = Pooled(whole)

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.summary(x)
        return self.head(self.blocks[0](x))


def pair(make):
    """(bug, twin): a series model whose first layer is right and whose second is wrong, or right."""
    return (lambda: Series(make(False), make(True))), (lambda: Series(make(False), make(False)))


def halved(model):
    x = torch.randn(1, 8, 6)
    other = x.clone()
    other[:, 1] += 1
    gap = (model(x) - model(other))[:, 0].abs().max()
    return f"output 0 stands at input 0; change input 1: it moves by {float(gap):.2g}"


def channels(model):
    x = torch.randn(1, 6, 9)
    other = x.clone()
    other[..., -1] += 3
    gap = (model(x) - model(other))[..., :-1].abs().max()
    return f"change the last frame: earlier frames move by {float(gap):.2g}"


LAYER = {"layer": 1, "module": "layers.1"}

CASES = (
    Case(
        "norm over time",
        "outside-attention",
        "google-deepmind/dm-haiku#700",
        "LayerNorm with axis=(0, 1): statistics know the future.",
        *pair(NormOverTime),
        CAUSAL,
        **LAYER,
    ),
    Case(
        "convolution on both sides",
        "outside-attention",
        "",
        "padding='same' reads one frame ahead.",
        *pair(Convolution),
        CAUSAL,
        **LAYER,
    ),
    Case(
        "recurrence both ways",
        "outside-attention",
        "",
        "A bidirectional LSTM in a forecaster.",
        *pair(Recurrent),
        CAUSAL,
        **LAYER,
    ),
    Case(
        "mixing along time",
        "outside-attention",
        "",
        "A token mixer without its triangle.",
        *pair(Mixer),
        CAUSAL,
        **LAYER,
    ),
    Case(
        "series normalised by its whole window",
        "outside-attention",
        "shiyu-coder/Kronos#227",
        "Mean and deviation of the future enter the forecast.",
        lambda: WholeWindow(True),
        lambda: WholeWindow(False),
        CAUSAL,
    ),
    Case(
        "strided convolution under-padded",
        "outside-attention",
        "lucidrains/magvit2-pytorch#27",
        "Each frame of a video code knows the next.",
        lambda: Downsample(1),
        lambda: Downsample(2),
        {
            "expect": Causal(),
            "inputs": torch.randn(3, 24, 6, generator=torch.Generator().manual_seed(3)),
            "positions": lambda j: 2 * j,
        },
        shows=halved,
    ),
    Case(
        "instance norm over time",
        "outside-attention",
        "google-deepmind/dm-haiku#700",
        "Channels-first models normalise over time by habit.",
        lambda: Temporal(nn.InstanceNorm1d(WIDTH)),
        lambda: Temporal(ChannelNorm()),
        {"expect": Causal(), "inputs": torch.randn(3, 6, 20, generator=torch.Generator().manual_seed(4))},
        module="norm",
        shows=channels,
    ),
    Case(
        "summary of the sequence",
        "outside-attention",
        "",
        "A pooled vector is added to every position.",
        lambda: WithSummary(True),
        lambda: WithSummary(False),
        CAUSAL,
        module="summary",
    ),
    Case(
        "buckets by a sort",
        "routing",
        "google/trax#1539",
        "Chunks of an LSH attention depend on what follows.",
        *pair(Buckets),
        CAUSAL,
        **LAYER,
    ),
    Case(
        "experts choose their tokens",
        "routing",
        "",
        "A token's expert depends on later tokens.",
        *pair(ExpertsChoose),
        CAUSAL,
        **LAYER,
    ),
    Case(
        "capacity by confidence",
        "routing",
        "",
        "Later, more confident tokens push earlier ones out.",
        *pair(Capacity),
        CAUSAL,
        **LAYER,
    ),
)
