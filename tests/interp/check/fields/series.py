"""Forecasters, tracers and decisions: floats, several streams, patches and windows."""

import torch
import torch.nn.functional as F
from torch import nn

from headwise.interp.zoo.case import Block
from tests.interp.check.fields.field import WIDTH, Field, causal, drawn


class PatchDecoder(nn.Module):
    """Series (B, T, C) → the next patch (B, N, C, P) after each of N = T / 4 patches, every channel by itself (Nie et
    al. 2023; Das et al. 2024). The bug normalises by the whole series (RevIN)."""

    PATCH = 4

    def __init__(self, whole: bool):
        super().__init__()
        self.whole = whole
        self.enter, self.leave = nn.Linear(self.PATCH, WIDTH), nn.Linear(WIDTH, self.PATCH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x):
        b, _, c = x.shape
        if self.whole:
            mean, deviation = x.mean(1, keepdim=True), x.std(1, keepdim=True) + 1e-5
            x = (x - mean) / deviation
        patches = x.transpose(1, 2).unfold(2, self.PATCH, self.PATCH)  # (B, C, N, P)
        y = self.enter(patches).flatten(0, 1)
        for block in self.blocks:
            y = block(y)
        return self.leave(y).unflatten(0, (b, c)).transpose(1, 2)


class Temporal(nn.Module):
    """One block of a TCN: padded on both sides, and then what is too much is cut off (Bai et al. 2018) – at the end, or
    at the beginning."""

    def __init__(self, into, out, dilation, wrong_end):
        super().__init__()
        self.extra, self.wrong_end = 2 * dilation, wrong_end
        self.conv = nn.Conv1d(into, out, 3, padding=self.extra, dilation=dilation)
        self.across = nn.Conv1d(into, out, 1)

    def forward(self, x):
        y = self.conv(x)
        y = y[..., self.extra :] if self.wrong_end else y[..., : -self.extra]
        return F.relu(y) + self.across(x)


class TCN(nn.Module):
    """(B, T, C) → (B, T, 3)"""

    def __init__(self, wrong_end: bool):
        super().__init__()
        self.blocks = nn.Sequential(Temporal(5, WIDTH, 1, False), Temporal(WIDTH, WIDTH, 2, wrong_end))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        return self.head(self.blocks(x.transpose(1, 2)).transpose(1, 2))


class Fusion(nn.Module):
    """past (B, T, 2) and what is known ahead, calendar and prices (B, T, 3), → quantiles (B, T, 3) (Lim et al. 2021).
    Both ways over what is known is right; the bug reads the past so too."""

    def __init__(self, both: bool):
        super().__init__()
        self.both = both
        self.ahead = nn.GRU(3, WIDTH // 2, batch_first=True, bidirectional=True)
        self.behind = nn.GRU(2, WIDTH // 2 if both else WIDTH, batch_first=True, bidirectional=both)
        self.block, self.head = Block(), nn.Linear(WIDTH, 3)

    def forward(self, past, known):
        return self.head(self.block(self.behind(past)[0] + self.ahead(known)[0]))


class Rolling(nn.Module):
    """Series (B, T) → the next value (B, T), each from its own window of six, folded into the batch (N-BEATS). A bug's
    windows end with what they are to forecast."""

    WINDOW = 6

    def __init__(self, target_inside: bool):
        super().__init__()
        self.ahead = int(target_inside)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(self.WINDOW, WIDTH), nn.ReLU(), nn.Linear(WIDTH, self.WINDOW + 1)) for _ in range(2)
        )

    def forward(self, series):
        padded = F.pad(series, (self.WINDOW - 1 - self.ahead, self.ahead))
        rest = padded.unfold(1, self.WINDOW, 1).flatten(0, 1)  # (B · T, WINDOW)
        forecast = 0
        for block in self.blocks:
            out = block(rest)
            rest, forecast = rest - out[:, :-1], forecast + out[:, -1]
        return forecast.view_as(series)


class LastStep(nn.Module):
    """Series (B, T, C) → one forecast (B, 2), from the last state of causal blocks. The bug smooths the series by a
    centred moving average first (Autoformer's decomposition)."""

    def __init__(self, centred: bool):
        super().__init__()
        self.smooth = nn.AvgPool1d(3, 1)
        self.padding = (1, 1) if centred else (2, 0)
        self.enter, self.head = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 2)
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x):
        trend = self.smooth(F.pad(x.transpose(1, 2), self.padding, mode="replicate")).transpose(1, 2)
        y = self.enter(torch.cat([trend, x - trend], -1))
        for block in self.blocks:
            y = block(y)
        return self.head(y[:, -1])


class Scaled(nn.Module):
    """Series (B, T, 1) → a distribution's two parameters (B, T, 2); the scale is the mean of the first six steps, its
    context (DeepAR), or of all."""

    def __init__(self, whole: bool):
        super().__init__()
        self.context = None if whole else 6
        self.rnn, self.head = nn.LSTM(1, WIDTH, batch_first=True), nn.Linear(WIDTH, 2)

    def forward(self, x):
        scale = 1 + x[:, : self.context].abs().mean(1, keepdim=True)
        return self.head(self.rnn(x / scale)[0]) * scale


class Tracer(nn.Module):
    """skill (B, T), answer (B, T) → the chance of a right answer to each exercise (B, T), from those before it. The bug
    knows a student's ability from all of the answers."""

    SKILLS = 13

    def __init__(self, whole: bool):
        super().__init__()
        self.whole = whole
        self.skill, self.done = nn.Embedding(self.SKILLS, WIDTH), nn.Embedding(2 * self.SKILLS + 1, WIDTH)
        self.attend, self.norm = nn.MultiheadAttention(WIDTH, 4, batch_first=True), nn.LayerNorm(WIDTH)
        self.ability, self.out = nn.Linear(1, WIDTH), nn.Linear(WIDTH, 1)

    def forward(self, skill, answer):
        before = F.pad(skill + self.SKILLS * answer + 1, (1, -1))
        ask, past = self.skill(skill), self.done(before)
        x = ask + self.attend(ask, past, past, attn_mask=~causal(skill.shape[1]), need_weights=False)[0]
        right = F.pad(answer.to(x.dtype), (1, -1))
        if self.whole:
            rate = right.mean(1, keepdim=True).expand_as(right)
        else:
            rate = right.cumsum(1) / torch.arange(1, right.shape[1] + 1)
        return self.out(self.norm(x + self.ability(rate[..., None])))[..., 0].sigmoid()


class Hawkes(nn.Module):
    """kind (B, T) and time (B, T) of events → logits of the next kind (B, T, 7). The bug divides times by the last
    one."""

    def __init__(self, by_last: bool):
        super().__init__()
        self.by_last = by_last
        self.kind, self.block, self.head = nn.Embedding(7, WIDTH), Block(), nn.Linear(WIDTH, 7)
        self.rates = nn.Parameter(torch.rand(WIDTH))

    def forward(self, kind, time):
        time = time / time[:, -1:].abs().clamp(min=0.1) if self.by_last else time
        return self.head(self.block(self.kind(kind) + (time[..., None] * self.rates).sin()))


class DecisionTransformer(nn.Module):
    """returns (B, T, 1), states (B, T, 5), actions (B, T, 2) → the action of each step (B, T, 2), from 3 T tokens (Chen
    et al. 2021). The bug lays the three streams one behind the other and masks them as if they alternated."""

    def __init__(self, one_behind_the_other: bool):
        super().__init__()
        self.behind = one_behind_the_other
        self.enter = nn.ModuleList(nn.Linear(n, WIDTH) for n in (1, 5, 2))
        self.blocks, self.head = nn.ModuleList(Block() for _ in range(2)), nn.Linear(WIDTH, 2)

    def forward(self, returns, states, actions):
        parts = [f(x) for f, x in zip(self.enter, (returns, states, actions), strict=True)]
        x = torch.cat(parts, 1) if self.behind else torch.stack(parts, 2).flatten(1, 2)
        for block in self.blocks:
            x = block(x)
        x = x.unflatten(1, (3, -1))[:, 1] if self.behind else x.unflatten(1, (-1, 3))[:, :, 1]
        return self.head(x)


FIELDS = (
    Field("patch decoder", PatchDecoder, "normalised by the whole series"),
    Field("TCN", TCN, "cut off at the wrong end", where="blocks.1"),
    Field(
        "fusion of what is known ahead",
        Fusion,
        "the past is read both ways",
        options={"inputs": {"past": drawn(3, 17, 2), "known": drawn(3, 17, 3, seed=6)}, "known_ahead": "known"},
        where="behind",
    ),
    Field("rolling windows", Rolling, "windows end with their target"),
    Field("one forecast a series", LastStep, "a centred moving average"),
    Field("scaled by its context", Scaled, "scaled by all", expect="Prefix(6)"),
    Field(
        "knowledge tracer",
        Tracer,
        "ability from all answers",
        options={"inputs": {"skill": drawn(3, 17, below=13), "answer": drawn(3, 17, below=2)}},
    ),
    Field(
        "events in time",
        Hawkes,
        "times divided by the last",
        options={"inputs": {"kind": drawn(3, 17, below=7), "time": drawn(3, 17).abs().cumsum(1)}},
    ),
    Field(
        "decision transformer",
        DecisionTransformer,
        "streams one behind the other",
        options={"inputs": {"returns": drawn(3, 11, 1), "states": drawn(3, 11, 5), "actions": drawn(3, 11, 2)}},
    ),
)
