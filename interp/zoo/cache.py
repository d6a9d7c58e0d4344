"""Decoding with a cache differs from the full forward."""

import torch
import torch.nn.functional as F
from torch import nn

from headwise.interp.masks import Causal, Window
from headwise.interp.zoo.case import VOCABULARY, WIDTH, Block, Case, heads_of


def turn(x, positions):
    """Rotary positions (Su et al. 2021): x (B, H, T, D) turned by position."""
    half = x.shape[-1] // 2
    angle = positions[:, None] * 100.0 ** (-torch.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)


class Cached(nn.Module):
    """Attention with a cache of keys and values, (B, H, K, D) each; keys are turned before they are kept."""

    def __init__(self):
        super().__init__()
        self.qkv, self.output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def allowed(self, queries: int, keys: int):
        """Query i stands at keys − queries + i."""
        return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)

    def start(self, cache, at: int) -> int:
        """Position of the first new token."""
        return at

    def forward(self, x, cache=None, at=0):
        q, k, v = (heads_of(part) for part in self.qkv(x).chunk(3, -1))
        place = self.start(cache, at) + torch.arange(x.shape[1])
        q, k = turn(q, place), turn(k, place)
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        out = self.mix(q, k, v)
        return self.output(out.transpose(1, 2).flatten(2)), (k, v)

    def mix(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, self.allowed(q.shape[2], k.shape[2]))


class Layer(Block):
    def forward(self, x, cache=None, at=0):
        seen, cache = self.attention(self.norm(x), cache, at)
        x = x + seen
        return x + self.mlp(x), cache


class Decoder(nn.Module):
    """ids (B, T), caches → logits, caches. ``at`` is how many tokens came before."""

    def __init__(self, *layers):
        super().__init__()
        self.embed, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)
        self.blocks = nn.ModuleList(Layer(layer) for layer in (layers or (Cached, Cached)))

    def forward(self, ids, caches=None, decoding=False):
        for block in self.blocks:
            block.attention.decoding = decoding
        x, kept = self.embed(ids), []
        at = 0 if caches is None else caches[0][0].shape[2]
        for index, block in enumerate(self.blocks):
            x, cache = block(x, None if caches is None else caches[index], at)
            kept.append(cache)
        return self.head(x), kept


def step(model, ids, cache):
    return model(ids, cache, decoding=True)


class TrilOnOne(Cached):
    """tril of (1, S): one query sees the first key only."""

    def allowed(self, queries, keys):
        return torch.ones(queries, keys, dtype=torch.bool).tril() if queries == 1 else super().allowed(queries, keys)


class TopLeft(Cached):
    """A chunk against a longer cache is aligned top-left, as torch's is_causal does."""

    def allowed(self, queries, keys):
        return torch.ones(queries, keys, dtype=torch.bool).tril()


class ChunkUnmasked(Cached):
    """With a cache there is "no need" for a mask – true for one token, false for a chunk."""

    def allowed(self, queries, keys):
        return torch.ones(queries, keys, dtype=torch.bool) if keys > queries else super().allowed(queries, keys)


class ChunkAsDocument(Cached):
    """A chunk's positions do not start at 0, so it is taken for a new packed document: it sees itself only."""

    def allowed(self, queries, keys):
        mask = super().allowed(queries, keys)
        if 1 < queries < keys:
            mask[:, : keys - queries] = False
        return mask


class StuckAtZero(Cached):
    """The table of angles is made for the length, and the offset is forgotten."""

    def start(self, cache, at):
        return 0


class OneTooFar(Cached):
    """The position counter was already moved by the layer below."""

    def start(self, cache, at):
        return at + 1 if at else 0


class EmptySlots(Cached):
    """A cache of 40 slots, all of which are attended, written or not."""

    def mix(self, q, k, v):
        queries, keys = q.shape[2], k.shape[2]
        if keys == queries:
            return super().mix(q, k, v)
        wide = [torch.cat([t, torch.zeros(*t.shape[:2], 40 - keys, t.shape[3])], 2) for t in (k, v)]
        mask = torch.ones(queries, 40, dtype=torch.bool).tril(keys - queries)
        mask[:, keys:] = True
        return F.scaled_dot_product_attention(q, *wide, mask)


class Slots(EmptySlots):
    def mix(self, q, k, v):
        return Cached.mix(self, q, k, v)


class Ring(Cached):
    """A window of 4."""

    def allowed(self, queries, keys):
        back = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)
        return (back >= 0) & (back < 4)


class RingPrefill(Ring):
    """A prefill longer than the window overwrites the ring before its first queries have read it."""

    def mix(self, q, k, v):
        if not self.decoding or q.shape[2] <= 4:
            return super().mix(q, k, v)
        mask = self.allowed(q.shape[2], k.shape[2])
        mask[:, -4:] = True
        return F.scaled_dot_product_attention(q, k, v, mask)


def decoded(model, chunks=(4, 1, 1, 2, 2)):
    ids = torch.randint(2, VOCABULARY, (1, 10))
    full, cache, parts = model(ids)[0], None, []
    for part in ids.split(chunks, 1):
        out, cache = step(model, part, cache)
        parts.append(out)
    gaps = (full - torch.cat(parts, 1)).abs().amax((0, 2))
    return (
        f"decoded in chunks against at once: {int((gaps > 1e-4).sum())} of 10 "
        f"positions differ, by up to {float(gaps.max()):.2g}"
    )


DECODING = {"expect": Causal(), "step": step}


def second(wrong, right=Cached):
    return (lambda: Decoder(right, wrong)), (lambda: Decoder(right, right))


WHERE = {"layer": 1, "module": "blocks.1.attention", "shows": decoded}

CASES = (
    Case(
        "tril on one query",
        "cache",
        "google/flax#5591",
        "Decoding one token sees only the first key.",
        *second(TrilOnOne),
        DECODING,
        **WHERE,
    ),
    Case(
        "causal aligned top-left",
        "cache",
        "ml-explore/mlx#2835",
        "A chunk of queries against a longer cache sees the wrong keys.",
        *second(TopLeft),
        DECODING,
        **WHERE,
    ),
    Case(
        "chunk after a cache unmasked",
        "cache",
        "ml-explore/mlx#2835",
        "A chunk's queries see each other's future.",
        *second(ChunkUnmasked),
        DECODING,
        **WHERE,
    ),
    Case(
        "chunk taken for a document",
        "cache",
        "huggingface/transformers#32487",
        "Two tokens after a cache are read as a packed document.",
        *second(ChunkAsDocument),
        DECODING,
        **WHERE,
    ),
    Case(
        "empty slots attended",
        "cache",
        "huggingface/transformers#30437",
        "A static cache's unwritten slots take part.",
        *second(EmptySlots, Slots),
        DECODING,
        **WHERE,
    ),
    Case(
        "position stuck at zero",
        "cache",
        "lucidrains/rotary-embedding-torch#11",
        "The angles of a step are those of the first token.",
        *second(StuckAtZero),
        DECODING,
        **WHERE,
    ),
    Case(
        "upper layers one too far",
        "cache",
        "fla-org/flash-linear-attention#766",
        "Layer 0 moves the counter that layer 1 reads.",
        *second(OneTooFar),
        DECODING,
        **WHERE,
    ),
    Case(
        "ring cache and a long prefill",
        "cache",
        "Lightning-AI/litgpt#2182",
        "A prefill longer than the window sees the future.",
        *second(RingPrefill, Ring),
        {"expect": Window(3, 0), "step": step},
        **WHERE,
    ),
)
