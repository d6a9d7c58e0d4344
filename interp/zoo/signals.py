"""Speech, events and exercises: statistics over time, in other layouts and with several streams."""

import torch
import torch.nn.functional as F
from torch import nn

from headwise.interp.masks import Bidirectional
from headwise.interp.zoo.case import WIDTH, Case
from headwise.interp.zoo.conventions import CAUSAL


class Events(nn.Module):
    """Events (B, T, 6) → the next (B, T, 6). Batch norm takes its statistics over events, layer norm over features."""

    def __init__(self, over_events: bool):
        super().__init__()
        self.norm = nn.BatchNorm1d(6) if over_events else nn.LayerNorm(6)
        self.turned = over_events
        self.rnn, self.head = nn.GRU(6, WIDTH, batch_first=True), nn.Linear(WIDTH, 6)

    def forward(self, events):
        x = self.norm(events.transpose(1, 2)).transpose(1, 2) if self.turned else self.norm(events)
        return self.head(self.rnn(x)[0])


class BandNorm(nn.Module):
    """(B, T, C), normalised over all frames and channels, or over the channels of each frame."""

    def __init__(self, channels: int, all_frames: bool):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels) if all_frames else nn.LayerNorm(channels)
        self.all_frames = all_frames

    def forward(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2) if self.all_frames else self.norm(x)


class Separator(nn.Module):
    """A complex spectrum as reals (B, T, F, 2), masked: bands of two bins, recurrence over time and over bands."""

    BANDS = 3

    def __init__(self, all_frames: bool):
        super().__init__()
        self.norms = nn.ModuleList(BandNorm(4, all_frames) for _ in range(self.BANDS))
        self.split = nn.ModuleList(nn.Linear(4, WIDTH) for _ in range(self.BANDS))
        self.time = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.band = nn.GRU(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True)
        self.mask = nn.Linear(WIDTH, 4)

    def forward(self, x):
        parts = zip(self.norms, self.split, x.flatten(2).chunk(self.BANDS, -1), strict=True)
        z = torch.stack([split(norm(part)) for norm, split, part in parts], 1)  # (B, K, T, C)
        z = z + self.time(z.flatten(0, 1))[0].view_as(z)
        z = z.transpose(1, 2)  # (B, T, K, C)
        z = z + self.band(z.flatten(0, 1))[0].view_as(z)
        return self.mask(z).flatten(2).view_as(x).tanh() * x


class FramesNorm(nn.Module):
    """Each channel of (B, C, frames) over the real frames, or over all."""

    def __init__(self, heeds_padding: bool):
        super().__init__()
        self.heeds_padding = heeds_padding

    def forward(self, x, real):
        weight = real[:, None].to(x.dtype) if self.heeds_padding else torch.ones_like(x[:, :1])
        total = weight.sum(-1, keepdim=True)
        mean = (x * weight).sum(-1, keepdim=True) / total
        return (x - mean) / (((x - mean) ** 2 * weight).sum(-1, keepdim=True) / total + 1e-5).sqrt()


class SpeechEncoder(nn.Module):
    """waveforms (B, T), lengths (B,) → features (B, frames, C) and the frames of each."""

    KERNEL, STRIDE = 6, 4

    def __init__(self, heeds_padding: bool):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, WIDTH, self.KERNEL, self.STRIDE), FramesNorm(heeds_padding)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, 0.0, batch_first=True, norm_first=True)

    def forward(self, waveforms, lengths=None):
        x = self.conv(waveforms[:, None])
        given = torch.full((len(x),), waveforms.shape[1]) if lengths is None else lengths
        frames = (given - self.KERNEL) // self.STRIDE + 1
        real = torch.arange(x.shape[2]) < frames[:, None]
        return self.layer(F.gelu(self.norm(x, real)).transpose(1, 2), src_key_padding_mask=~real), frames


class Tracer(nn.Module):
    """skill (B, T), answer (B, T) → the chance of a right answer to each skill (B, T, 13), from a weighted mean of what
    was before. A softmax over time has the future in its normaliser, whatever is summed afterwards."""

    SKILLS = 13

    def __init__(self, over_all_time: bool):
        super().__init__()
        self.over_all_time = over_all_time
        self.skill, self.answer = nn.Embedding(self.SKILLS, WIDTH), nn.Embedding(2, WIDTH)
        self.rnn, self.score = nn.GRU(WIDTH, WIDTH, batch_first=True), nn.Linear(WIDTH, 1)
        self.out = nn.Linear(2 * WIDTH, self.SKILLS)

    def forward(self, skill, answer):
        h = self.rnn(self.skill(skill) + self.answer(answer))[0]
        if self.over_all_time:
            before = (self.score(h).softmax(1) * h).cumsum(1)
        else:
            weight = self.score(h).exp()
            before = (weight * h).cumsum(1) / weight.cumsum(1)
        return self.out(torch.cat([before, h], -1)).sigmoid()


class Codec(nn.Module):
    """Waveform (B, 1, T) → codes (B, 6, T / 2), padded on the left – with zeros, or with mirrored samples, which come
    later."""

    def __init__(self, padded_with: str):
        super().__init__()
        self.padded_with = padded_with
        self.enter, self.down = nn.Conv1d(1, WIDTH, 5), nn.Conv1d(WIDTH, 6, 4, stride=2)

    def causal(self, x, conv):
        return conv(F.pad(x, (conv.kernel_size[0] - conv.stride[0], 0), mode=self.padded_with))

    def forward(self, waveform):
        return self.causal(F.elu(self.causal(waveform, self.enter)), self.down)


# -- what shows them
def moved(model, x, other, earlier):
    out, after = (y[0] if isinstance(y, tuple) else y for y in (model(*x), model(*other)))
    return f"change what comes later: earlier outputs move by up to {float((out - after)[earlier].abs().max()):.2g}"


def in_training(model):
    x = torch.randn(2, 9, 6)
    other = torch.cat([x[:, :6], x[:, 6:] + 2], 1)
    try:
        return "in training, " + moved(model.train(), (x,), (other,), (slice(None), slice(6)))
    finally:
        model.eval()


def of_a_spectrum(model):
    x = torch.randn(1, 12, 6, 2)
    return moved(model, (x,), (torch.cat([x[:, :9], x[:, 9:] + 2], 1),), (slice(None), slice(9)))


def of_exercises(model):
    skill, answer = torch.randint(0, Tracer.SKILLS, (1, 12)), torch.randint(0, 2, (1, 12))
    other = torch.cat([skill[:, :8], (skill[:, 8:] + 1) % Tracer.SKILLS], 1)
    return moved(model, (skill, answer), (other, answer), (slice(None), slice(8)))


def of_samples(model):
    x = torch.randn(1, 1, 24)
    return moved(
        model, (x,), (torch.cat([x[..., :4], torch.randn(1, 1, 20)], 2),), (slice(None), slice(None), slice(2))
    )


def padded_recording(model):
    x = torch.randn(1, 46)
    alone, n = model(x, torch.tensor([46]))
    padded = torch.cat([torch.cat([x, torch.zeros(1, 40)], 1), torch.randn(1, 86)])
    together, _ = model(padded, torch.tensor([46, 86]))
    gap = float((alone - together[:1, : int(n)]).abs().max())
    return f"a recording alone, and beside one of twice its length: features differ by {gap:.2g}"


def pair(make):
    """(bug, twin)"""
    return (lambda: make(True)), (lambda: make(False))


def drawn(*shape, below=0):
    """Floats, or ids below a number, the same every time."""
    g = torch.Generator().manual_seed(6)
    return torch.randint(below, shape, generator=g) if below else torch.randn(shape, generator=g)


CASES = (
    Case(
        "batch statistics in training",
        "mode",
        "pytorch-lifestream/pytorch-lifestream#128",
        "Batch norm over events: a next-event loss is trained with the future, and eval looks innocent.",
        *pair(Events),
        CAUSAL,
        module="norm",
        shows=in_training,
    ),
    Case(
        "group norm in a causal separator",
        "outside-attention",
        "espnet/espnet#5900",
        "causal=True, and yet each band is normalised over all frames.",
        *pair(Separator),
        {**CAUSAL, "inputs": drawn(3, 17, 6, 2)},
        0,
        "norms.0",
        of_a_spectrum,
    ),
    Case(
        "norm counts padded frames",
        "outside-attention",
        "pytorch/audio#2242",
        "A recording's features depend on how far it was padded, in spite of the lengths.",
        lambda: SpeechEncoder(False),
        lambda: SpeechEncoder(True),
        {"expect": Bidirectional(), "inputs": drawn(3, 86)},
        module="norm",
        shows=padded_recording,
    ),
    Case(
        "softmax, then a running sum",
        "outside-attention",
        "xiaopengguo/ATKT#1",
        "The sum looks back only; the softmax it sums was normalised over all exercises.",
        *pair(Tracer),
        {
            **CAUSAL,
            "inputs": {
                "skill": drawn(3, 17, below=13),
                "answer": drawn(3, 17, below=2),
            },
        },
        shows=of_exercises,
    ),
    Case(
        "padded by reflection",
        "outside-attention",
        "lucidrains/audiolm-pytorch#166",
        "A causal convolution begins with mirrored samples, which are samples of the future.",
        lambda: Codec("reflect"),
        lambda: Codec("constant"),
        CAUSAL,
        shows=of_samples,
    ),
)
