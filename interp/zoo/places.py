"""Places miscounted: of chunks, of the last token, of windows on a grid, of keys in a step, of decay in a chunk."""

import torch
import torch.nn.functional as F
from torch import nn

from headwise.interp.masks import Blocks, Causal
from headwise.interp.zoo.cache import Cached, Decoder, decoded, step
from headwise.interp.zoo.case import VOCABULARY, WIDTH, Attention, Block, Case, Language, causal, left_padded_answer
from headwise.interp.zoo.conventions import CAUSAL


class Chunked(Attention):
    """Chunks of four tokens, counted from the first real one."""

    def places(self, length, real):
        first = 0 if real is None else real.long().argmax(1, keepdim=True)
        return torch.arange(length)[None] - first

    def allowed(self, length, real):
        chunk = self.places(length, real).div(4, rounding_mode="floor")
        return super().allowed(length, real) & (chunk[:, None, :, None] == chunk[:, None, None, :])


class ChunkedFromTheRow(Chunked):
    def places(self, length, real):
        return torch.arange(length)[None]


class Scorer(Language):
    """ids (B, T) → scores (B, VOCABULARY), read at the last real token."""

    def last(self, real):
        return (torch.arange(real.shape[1]) * real).argmax(1)

    def forward(self, ids, attention_mask=None):
        real = torch.ones_like(ids) if attention_mask is None else attention_mask
        return super().forward(ids, attention_mask)[torch.arange(len(ids)), self.last(real)]


class ScorerByCount(Scorer):
    """The last real token is looked up at their number less one: right under padding on the right only."""

    def last(self, real):
        return real.sum(1) - 1


class ShiftedWindows(nn.Module):
    """A grid (B, 5, 5, C): attention in windows of 4 × 4 of the grid rolled by two. It is padded to 8 × 8
    before it is rolled, for which the mask is made, or afterwards."""

    SIDE, WINDOW, SHIFT = 5, 4, 2

    def __init__(self, pads_last: bool):
        super().__init__()
        self.pads_last = pads_last
        self.block = Block(lambda: InWindows(self.WINDOW, self.SHIFT))

    def forward(self, x):
        more, shift = -x.shape[1] % self.WINDOW, (-self.SHIFT, -self.SHIFT)
        room = (0, 0, 0, more, 0, more)
        y = F.pad(x.roll(shift, (1, 2)), room) if self.pads_last else F.pad(x, room).roll(shift, (1, 2))
        y, back = self.block(y), (self.SHIFT, self.SHIFT)
        side = x.shape[1]
        return y[:, :side, :side].roll(back, (1, 2)) if self.pads_last else y.roll(back, (1, 2))[:, :side, :side]


class InWindows(Attention):
    """(B, S, S, C): attention within windows, and of these within what was not wrapped around."""

    def __init__(self, window: int, shift: int):
        super().__init__()
        self.window, self.shift = window, shift

    def cut(self, x):
        """(B, S, S, C) → (B · n, window², C)"""
        x = x.unflatten(2, (-1, self.window)).unflatten(1, (-1, self.window)).transpose(2, 3)
        return x.flatten(3, 4).flatten(0, 2)

    def allowed(self, length, real):
        line = torch.zeros(self.side, dtype=torch.long)
        line[-self.window : -self.shift], line[-self.shift :] = 1, 2
        region = self.cut((3 * line[:, None] + line)[None, :, :, None])[..., 0]  # (n, window²)
        return (region[:, :, None] == region[:, None]).repeat(self.batch, 1, 1)[:, None]

    def forward(self, x):
        self.batch, self.side = x.shape[:2]
        n = self.side // self.window
        y = super().forward(self.cut(x)).unflatten(0, (-1, n, n)).unflatten(3, (self.window, self.window))
        return y.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class Alibi(Cached):
    """Scores lowered with distance (Press et al. 2022), by the place of the key among all keys."""

    def places(self, queries, keys):
        return torch.arange(keys)

    def mix(self, q, k, v):
        queries, keys = q.shape[2], k.shape[2]
        slopes = 2.0 ** -torch.arange(1, q.shape[1] + 1)[:, None, None]
        bias = (slopes * self.places(queries, keys)).expand(-1, queries, keys)
        return F.scaled_dot_product_attention(q, k, v, bias.masked_fill(~self.allowed(queries, keys), -torch.inf))


class AlibiOfQueries(Alibi):
    """By the place of the key among the queries: of one query it is 0, and broadcasts."""

    def places(self, queries, keys):
        return torch.arange(queries)


class Retention(nn.Module):
    """(B, T, C), state (B, C, C): a chunk by scores, what came before from the state, decayed for each position of the
    chunk – or once (Sun et al. 2023, eq. 7)."""

    DECAY = 0.8

    def __init__(self, once: bool):
        super().__init__()
        self.once = once
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, x, state):
        q, k, v, t = self.q(x), self.k(x), self.v(x), torch.arange(x.shape[1])
        within = q @ k.transpose(1, 2) * self.DECAY ** (t[:, None] - t).clamp(min=0) * causal(len(t))
        fade = self.DECAY ** torch.ones_like(t) if self.once else self.DECAY ** (t + 1)
        kept = self.DECAY ** len(t) * state + (k * self.DECAY ** t.flip(0)[:, None]).transpose(1, 2) @ v
        return within @ v + q @ state * fade[:, None], kept


class RetNet(nn.Module):
    """ids (B, T), states → logits (B, T, V), states"""

    def __init__(self, once: bool):
        super().__init__()
        self.embed, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.layers = nn.ModuleList(Retention(once and i == 1) for i in range(2))

    def forward(self, ids, states=None):
        x, kept = self.embed(ids), []
        for i, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            seen, state = layer(norm(x), x.new_zeros(len(x), WIDTH, WIDTH) if states is None else states[i])
            x = x + seen
            kept.append(state)
        return self.head(x), kept


def of_windows(model):
    x, side = torch.randn(1, 5, 5, WIDTH), ShiftedWindows.SIDE
    other = x.clone()
    other[:, side - 1] = torch.randn(5, WIDTH)
    gap = float((model(x) - model(other))[:, : ShiftedWindows.SHIFT].abs().max())
    return f"change the last row of the grid: the first two, in other windows, move by up to {gap:.2g}"


def scored(model):
    ids = torch.randint(2, VOCABULARY, (1, 6))
    padded, real = F.pad(ids, (3, 0), value=1), torch.tensor([[0] * 3 + [1] * 6])
    gap = float((model(ids) - model(padded, real)).abs().max())
    return f"scores alone and with three pads on the left differ by {gap:.2g}"


def in_chunks(model):
    ids, parts, states = torch.randint(2, VOCABULARY, (1, 12)), [], None
    for part in ids.split(4, 1):
        out, states = model(part, states)
        parts.append(out)
    gap = float((model(ids)[0] - torch.cat(parts, 1)).abs().max())
    return f"in chunks of four against at once: logits differ by {gap:.2g}"


WINDOWS = Blocks(tuple(2 * (r >= 2) + (c >= 2) for r in range(5) for c in range(5)))
FOURS = Causal() & Blocks(tuple(t // 4 for t in range(24)))


CASES = (
    Case(
        "chunks cut from the padding",
        "position-ids",
        "huggingface/transformers#40324",
        "Chunked attention cuts a left-padded prompt at other tokens than the prompt alone.",
        lambda: Language(ChunkedFromTheRow, ChunkedFromTheRow),
        lambda: Language(Chunked, Chunked),
        {"expect": FOURS},
        shows=left_padded_answer,
    ),
    Case(
        "last token by counting",
        "padding",
        "huggingface/peft#3620",
        "A classifier reads at the number of real tokens less one, padded on the left too.",
        ScorerByCount,
        Scorer,
        CAUSAL,
        shows=scored,
    ),
    Case(
        "rolled, then padded",
        "future-leak",
        "huggingface/pytorch-image-models#2438",
        "The mask of shifted windows is made for the padded grid, which is no longer the one that was rolled.",
        lambda: ShiftedWindows(True),
        lambda: ShiftedWindows(False),
        {"expect": WINDOWS, "inputs": torch.randn(3, 5, 5, WIDTH, generator=torch.Generator().manual_seed(10))},
        module="block.attention",
        shows=of_windows,
    ),
    Case(
        "ALiBi of one query",
        "cache",
        "keras-team/keras-hub#2977",
        "The bias is made for the length of the query: 0 in a step of one token.",
        lambda: Decoder(Alibi, AlibiOfQueries),
        lambda: Decoder(Alibi, Alibi),
        {**CAUSAL, "step": step},
        1,
        "blocks.1.attention",
        lambda model: decoded(model, (4, 1, 1, 1, 1, 1, 1)),
    ),
    Case(
        "decayed once a chunk",
        "cache",
        "Jamie-Stirling/RetNet#10",
        "Retention in chunks is not the parallel one: the state before fades once for all of a chunk.",
        lambda: RetNet(True),
        lambda: RetNet(False),
        {**CAUSAL, "step": lambda model, ids, states: model(ids, states)},
        1,
        "layers.1",
        in_chunks,
    ),
)
