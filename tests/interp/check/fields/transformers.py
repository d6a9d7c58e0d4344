"""Transformers with time first, memory tokens, shortened middles and several streams."""

import torch
import torch.nn.functional as F
from torch import nn

from headwise.interp.zoo.case import Attention, Block
from tests.interp.check.fields.field import WIDTH, WORDS, Field, causal, drawn


class TimeFirstEncoder(nn.Module):
    """(T, B, C) → (T, B, C): nn.TransformerEncoder as torch makes it by default. The bug forgets the mask."""

    def __init__(self, unmasked: bool):
        super().__init__()
        self.unmasked = unmasked
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 32, 0.0)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, src):
        return self.encoder(
            src, mask=None if self.unmasked else nn.Transformer.generate_square_subsequent_mask(len(src))
        )


class TimeFirstDecoder(nn.Module):
    """tgt (T, B, C), memory (S, B, C) → (T, B, C): nn.TransformerDecoder. The bug masks the memory, not the target."""

    def __init__(self, memory_masked: bool):
        super().__init__()
        self.memory_masked = memory_masked
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, 4, 32, 0.0), 2)

    def forward(self, tgt, memory):
        if self.memory_masked:
            return self.decoder(
                tgt, memory, memory_mask=torch.ones(len(tgt), len(memory), dtype=torch.bool).triu(len(memory))
            )
        return self.decoder(tgt, memory, tgt_mask=~causal(len(tgt)))


class TimeFirstAttention(nn.Module):
    """ids (T, B) → logits (T, B, V) by nn.MultiheadAttention. The bug gives it a mask where True means may see."""

    def __init__(self, negated: bool):
        super().__init__()
        self.negated = negated
        self.embed, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.norm, self.attend = nn.LayerNorm(WIDTH), nn.MultiheadAttention(WIDTH, 4)

    def forward(self, ids):
        x = self.embed(ids)
        y = self.norm(x)
        mask = causal(len(ids)) if self.negated else ~causal(len(ids))
        return self.head(x + self.attend(y, y, y, attn_mask=mask, need_weights=False)[0])


class Told(Attention):
    """Attention with the mask (T, T) it is given."""

    def allowed(self, length, real):
        return real


class Memory(nn.Module):
    """ids (B, T) → logits (B, T, V) with three learned tokens before the sequence, which see each other only (Burtsev
    et al. 2020). In the bug they see everything."""

    def __init__(self, see_everything: bool):
        super().__init__()
        self.see_everything = see_everything
        self.memory = nn.Parameter(torch.randn(3, WIDTH))
        self.embed, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.blocks = nn.ModuleList(Block(Told) for _ in range(2))

    def forward(self, ids):
        n, length = len(self.memory), len(self.memory) + ids.shape[1]
        mask = causal(length)
        mask[:n] = True if self.see_everything else torch.arange(length) < n
        x = torch.cat([self.memory.expand(len(ids), -1, -1), self.embed(ids)], 1)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(x[:, n:])


class SinkAndShift(nn.Module):
    """ids (B, T) → logits: a learned first token stands in for the beginning of the sequence. The bug makes a mask for
    T and pads it at the wrong side."""

    def __init__(self, wrong_side: bool):
        super().__init__()
        self.wrong_side = wrong_side
        self.start = nn.Parameter(torch.randn(1, WIDTH))
        self.embed, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.blocks = nn.ModuleList(Block(Told) for _ in range(2))

    def forward(self, ids):
        mask = F.pad(causal(ids.shape[1]), (0, 1, 0, 1) if self.wrong_side else (1, 0, 1, 0), value=True)
        if not self.wrong_side:
            mask[0, 1:] = False
        x = torch.cat([self.start.expand(len(ids), -1, -1), self.embed(ids)], 1)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(x[:, 1:])


class Joint(nn.Module):
    """text (B, T), image (B, N, 8) → logits of the text: both in one row; the text sees the image and its own past, the
    image itself. In the bug the image sees the text."""

    def __init__(self, image_reads: bool):
        super().__init__()
        self.image_reads = image_reads
        self.embed, self.patch, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(8, WIDTH), nn.Linear(WIDTH, WORDS)
        self.blocks = nn.ModuleList(Block(Told) for _ in range(2))

    def forward(self, text, image):
        n, length = image.shape[1], image.shape[1] + text.shape[1]
        mask = causal(length) | (torch.arange(length) < n)
        if self.image_reads:
            mask[:n] = True
        x = torch.cat([self.patch(image), self.embed(text)], 1)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(x[:, n:])


class Hourglass(nn.Module):
    """ids (B, T) → logits: every three tokens are one in the middle; before they are shortened they are shifted by two
    (Nawrot et al. 2021). The bug does not shift."""

    SHORT = 3

    def __init__(self, unshifted: bool):
        super().__init__()
        self.shift = 0 if unshifted else self.SHORT - 1
        self.embed, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.first, self.middle, self.last = Block(), Block(), Block()

    def forward(self, ids):
        x, length = self.first(self.embed(ids)), ids.shape[1]
        y = F.pad(x, (0, 0, self.shift, 0))
        y = F.pad(y, (0, 0, 0, -y.shape[1] % self.SHORT)).unflatten(1, (-1, self.SHORT)).mean(2)
        y = self.middle(y).repeat_interleave(self.SHORT, 1)[:, :length]
        return self.head(self.last(x + y))


class Megabyte(nn.Module):
    """Bytes (B, T) → logits of the next one's: a global model over patches of four, a local one within each (Yu et al.
    2023). A patch hears of the patches before it; in the bug of itself too."""

    PATCH = 4

    def __init__(self, itself: bool):
        super().__init__()
        self.itself = itself
        self.embed, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.fold = nn.Linear(self.PATCH * WIDTH, WIDTH)
        self.whole, self.local = Block(), Block()

    def forward(self, ids):
        b, length = ids.shape
        x = self.embed(F.pad(ids, (0, -length % self.PATCH)))
        patches = x.unflatten(1, (-1, self.PATCH))  # (B, N, P, C)
        told = self.fold(patches.flatten(2))
        told = self.whole(told if self.itself else F.pad(told, (0, 0, 1, -1)))
        y = self.local((patches + told[:, :, None]).flatten(0, 1))
        return self.head(y.unflatten(0, (b, -1)).flatten(1, 2)[:, :length])


class Perceiver(nn.Module):
    """x (B, T, 6), mask (B, T) → latents (B, 5, C), which read the sequence twice (Jaegle et al. 2021). The second
    reading of the bug forgets the padding."""

    def __init__(self, forgets: bool):
        super().__init__()
        self.forgets = forgets
        self.latents, self.enter = nn.Parameter(torch.randn(5, WIDTH)), nn.Linear(6, WIDTH)
        self.reads = nn.ModuleList(nn.MultiheadAttention(WIDTH, 4, batch_first=True) for _ in range(2))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(WIDTH, 4, 32, 0.0, batch_first=True) for _ in range(2))

    def forward(self, x, mask=None):
        z, x = self.latents.expand(len(x), -1, -1), self.enter(x)
        for i, (read, block) in enumerate(zip(self.reads, self.blocks, strict=True)):
            hidden = None if mask is None or (self.forgets and i) else ~mask
            z = block(z + read(z, x, x, key_padding_mask=hidden, need_weights=False)[0])
        return z


FIELDS = (
    Field("nn.TransformerEncoder, time first", TimeFirstEncoder, "no mask"),
    Field(
        "nn.TransformerDecoder, time first",
        TimeFirstDecoder,
        "the memory is masked, not the target",
        options={"inputs": {"tgt": drawn(17, 3, WIDTH), "memory": drawn(7, 3, WIDTH)}},
    ),
    Field("nn.MultiheadAttention, time first", TimeFirstAttention, "the mask the wrong way round", where="attend"),
    Field("memory tokens", Memory, "memory sees everything"),
    Field("a learned first token", SinkAndShift, "the mask is padded at the wrong side"),
    Field(
        "text and image in one row",
        Joint,
        "the image sees the text",
        options={"inputs": {"text": drawn(3, 13, below=WORDS), "image": drawn(3, 4, 8)}},
    ),
    Field("hourglass", Hourglass, "not shifted before it is shortened"),
    Field("bytes in patches", Megabyte, "a patch hears of itself"),
    Field("Perceiver", Perceiver, "the second reading forgets the padding", expect="bidirectional"),
)
