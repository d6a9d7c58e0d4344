"""State that outlives its sequence: what was decoded before, or how it was padded, enters what comes after."""

import torch
from torch import nn

from headwise.interp.masks import Causal
from headwise.interp.zoo.cache import WHERE, Cached, Decoder, second, step
from headwise.interp.zoo.case import VOCABULARY, WIDTH, Case


class Streaming(nn.Module):
    """Frames (B, T, 6) as they come in → (B, T, 6). It goes on from call to call, until ``reset``."""

    def __init__(self):
        super().__init__()
        self.enter, self.place = nn.Linear(6, WIDTH), nn.Embedding(256, WIDTH)
        self.recurrence, self.leave = nn.GRU(WIDTH, WIDTH, batch_first=True), nn.Linear(WIDTH, 6)
        self.state, self.at = None, 0

    def reset(self):
        self.state, self.at = None, 0

    def forward(self, x):
        place = self.place(self.at + torch.arange(x.shape[1]))
        out, self.state = self.recurrence(self.enter(x) + place, self.state)
        self.at += x.shape[1]
        return self.leave(out)


class CountsOn(Streaming):
    """The reset forgets the counter."""

    def reset(self):
        self.state = None


class KeepsKeys(Cached):
    """While decoding it keeps the keys itself, and goes on from them when a new sequence begins."""

    def __init__(self):
        super().__init__()
        self.kept, self.decoding = None, False

    def begins(self, cache) -> bool:
        return False

    def forward(self, x, cache=None, at=0):
        if not self.decoding:
            return super().forward(x, cache, at)
        if self.begins(cache):
            self.kept = None
        out, self.kept = super().forward(x, self.kept, at)
        return out, self.kept


class ClearsKeys(KeepsKeys):
    def begins(self, cache):
        return cache is None


class Masked(Cached):
    """With a padding mask over all keys, the cached ones too."""

    real = None

    def allowed(self, queries, keys):
        mask = super().allowed(queries, keys)
        return mask if self.real is None else (mask & self.hidden(keys)) | torch.eye(keys, dtype=torch.bool)[-queries:]

    def hidden(self, keys):
        return self.real[:, None, None, -keys:]


class ForgetsPadding(Masked):
    """Beside a cache the padding mask is that of the new tokens: what was padded before them is seen."""

    def hidden(self, keys):
        real = self.real[:, -self.new :]
        return nn.functional.pad(real, (keys - real.shape[1], 0), value=True)[:, None, None]


class Padded(Decoder):
    """ids (B, T), attention_mask over all tokens so far, caches → logits, caches."""

    def forward(self, ids, attention_mask=None, caches=None):
        for block in self.blocks:
            block.attention.real = None if attention_mask is None else attention_mask.bool()
            block.attention.new = ids.shape[1]
        return super().forward(ids, caches)


class Buffered(nn.Module):
    """Each output is a mean of the last four frames; ``drops``: of this call's alone."""

    def __init__(self, drops: bool):
        super().__init__()
        self.drops, self.frames, self.leave = drops, [], nn.Linear(6, 6)

    def forward(self, x):
        self.frames = [] if self.drops else self.frames
        self.frames.append(x)
        wide = nn.functional.pad(torch.cat(self.frames, 1).transpose(1, 2), (3, 0))
        return self.leave(nn.functional.avg_pool1d(wide, 4, 1).transpose(1, 2))


def streamed_twice(model):
    x = torch.randn(1, 8, 6)
    first = model(x)
    model.reset()
    return f"the same frames after a reset: outputs differ by {float((model(x) - first).abs().max()):.2g}"


def decoded_twice(model):
    ids = torch.randint(2, VOCABULARY, (2, 1, 8))
    for sequence in ids:
        full, cache, parts = model(sequence)[0], None, []
        for part in sequence.split(2, 1):
            out, cache = step(model, part, cache)
            parts.append(out)
    return f"the second of two sequences differs by {float((full - torch.cat(parts, 1)).abs().max()):.2g}"


def decoded_padded(model):
    ids = torch.randint(2, VOCABULARY, (1, 8))
    real = torch.tensor([[0] * 3 + [1] * 5])
    full = model(ids, real)[0]
    cache = model(ids[:, :6], real[:, :6])[1]
    rest = model(ids[:, 6:], real, cache)[0]
    return f"two tokens after a padded prompt differ by {float((full[:, 6:] - rest).abs().max()):.2g}"


def lengths(model):
    x = torch.randn(1, 8, 6)
    return f"outputs for the same eight frames, twice: {model(x).shape[1]} and {model(x).shape[1]}"


CASES = (
    Case(
        "a reset that forgets the counter",
        "state",
        "",
        "The second stream is answered as if it went on.",
        CountsOn,
        Streaming,
        {"expect": Causal()},
        module="place",
        shows=streamed_twice,
    ),
    Case(
        "keys of the sequence before",
        "cache",
        "",
        "The second conversation answers to the first.",
        *second(KeepsKeys, ClearsKeys),
        {"expect": Causal(), "step": step},
        **{**WHERE, "shows": decoded_twice},
    ),
    Case(
        "padding forgotten beside a cache",
        "cache",
        "",
        "Batched generation goes astray after the prompt.",
        lambda: Padded(Masked, ForgetsPadding),
        lambda: Padded(Masked, Masked),
        {"expect": Causal()},
        shows=decoded_padded,
    ),
    Case(
        "a buffer that grows",
        "state",
        "",
        "The second call answers for the first one's frames, too.",
        lambda: Buffered(False),
        lambda: Buffered(True),
        {"expect": Causal()},
        shows=lengths,
    ),
)
