"""What stands under the padding, or how much of it there is, changes the answer."""

import torch
from torch import nn

from headwise.interp.masks import Bidirectional, Causal
from headwise.interp.zoo.case import VOCABULARY, WIDTH, Attention, Block, Case, Language, causal, left_padded_answer
from headwise.interp.zoo.conventions import CAUSAL, SECOND, two


class Both(Attention):
    """An encoder's attention: two ways, padding keys hidden."""

    def allowed(self, length, real):
        everything = torch.ones(length, length, dtype=torch.bool)
        return everything if real is None else everything & real[:, None, None, :]


class NeverReaches(Both):
    def allowed(self, length, real):
        return torch.ones(length, length, dtype=torch.bool)


class CausalOnly(Attention):
    def allowed(self, length, real):
        return causal(length)


class OnQueries(Both):
    """unsqueeze(3) for unsqueeze(2): whole rows are hidden instead of columns."""

    def mix(self, q, k, v, real):
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if real is not None:
            scores = scores.masked_fill(~real[:, None, :, None], -1e9)
        return scores.softmax(-1) @ v


class RowPositions(Language):
    """Positions counted over the row, padding included."""

    def positions(self, ids, real):
        return torch.arange(ids.shape[1])[None]


class ConvolvedBlock(Block):
    """A convolution beside attention, as in the Conformer. ``masked`` zeroes padding before it."""

    masked = True

    def __init__(self, attention):
        super().__init__(attention)
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x, real=None):
        x = super().forward(x, real)
        inside = x if real is None or not self.masked else x * real[..., None]
        return x + self.conv(inside.transpose(1, 2)).transpose(1, 2)


class ConvolvesPadding(ConvolvedBlock):
    masked = False


class TimeNorm(nn.Module):
    """Statistics over time, of real positions only – or of all."""

    def __init__(self, masked: bool):
        super().__init__()
        self.masked = masked

    def forward(self, x, real=None):
        weight = torch.ones_like(x[..., :1]) if real is None or not self.masked else real[..., None].to(x.dtype)
        mean = (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        return x - mean


class NormedBlock(Block):
    masked = True

    def __init__(self, attention):
        super().__init__(attention)
        self.time_norm = TimeNorm(self.masked)

    def forward(self, x, real=None):
        return self.time_norm(super().forward(x, real), real)


class NormsPadding(NormedBlock):
    masked = False


class Classifier(nn.Module):
    """Mean-pooled logits (B, 5)."""

    def __init__(self, masked: bool):
        super().__init__()
        self.masked = masked
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList([Block(Both)])
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, ids, attention_mask=None):
        real = torch.ones_like(ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        x = self.blocks[0](self.embed(ids), real)
        if not self.masked:
            return self.head(x.mean(1))
        return self.head((x * real[..., None]).sum(1) / real.sum(1, keepdim=True))


class Cross(nn.Module):
    """Five targets look at a source (B, T)."""

    def __init__(self, masked: bool):
        super().__init__()
        self.masked = masked
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.encoder = Block(Both)
        self.targets = nn.Parameter(torch.randn(5, WIDTH))
        self.cross_attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)

    def forward(self, ids, attention_mask=None):
        real = None if attention_mask is None else attention_mask.bool()
        memory = self.encoder(self.embed(ids), real)
        targets = self.targets.expand(len(ids), -1, -1)
        return self.cross_attention(
            targets, memory, memory, key_padding_mask=~real if self.masked and real is not None else None
        )[0]


class TwoMasksAdded(Attention):
    """Causal, key and query padding masks of the lowest number are added: sums are −inf, a row of them is NaN."""

    clamp = False

    def mix(self, q, k, v, real):
        lowest = torch.finfo(q.dtype).min
        mask = torch.zeros(q.shape[2], q.shape[2]).masked_fill(~causal(q.shape[2]), lowest)
        if real is not None:
            hidden = torch.zeros(real.shape).masked_fill(~real, lowest)
            mask = mask + hidden[:, None, None, :] + hidden[:, None, :, None]
            if self.clamp:
                mask = mask.clamp(min=lowest)
        return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + mask).softmax(-1) @ v


class TwoMasksClamped(TwoMasksAdded):
    clamp = True


class Truncating(Language):
    """Drops positions that are padding in every sample, as a nested fast path does."""

    def forward(self, ids, attention_mask=None):
        out = super().forward(ids, attention_mask)
        if attention_mask is None or self.training:
            return out
        return out[:, : max(1, int(attention_mask.sum(1).max()) - 2)]


ENCODER = {"expect": Bidirectional()}


def pooled(model):
    x = torch.randint(2, VOCABULARY, (1, 6))
    padded = torch.cat([x, torch.ones(1, 3, dtype=torch.long)], 1)
    real = torch.tensor([[1] * 6 + [0] * 3])
    alone, together = model(x, torch.ones_like(x)), model(padded, real)
    gap = (alone - together[:, : alone.shape[1]]).abs().max()
    return f"alone and with three pads: outputs differ by {float(gap):.2g}"


CASES = (
    Case(
        "padding mask never arrives",
        "padding",
        "ml-explore/mlx-lm#1906",
        "Answers in a batch differ from those alone.",
        lambda: Language(Both, NeverReaches),
        lambda: Language(Both, Both),
        ENCODER,
        **SECOND,
        shows=pooled,
    ),
    Case(
        "decoder ignores left padding",
        "padding",
        "ml-explore/mlx-lm#1906",
        "Batched generation begins with nonsense.",
        *two(CausalOnly, model=Language),
        CAUSAL,
        **SECOND,
        shows=left_padded_answer,
    ),
    Case(
        "padding mask on the query axis",
        "padding",
        "hyunwoongko/transformer#40",
        "Rows of padding are hidden, their columns are not.",
        lambda: Language(Both, OnQueries),
        lambda: Language(Both, Both),
        ENCODER,
        **SECOND,
        shows=pooled,
    ),
    Case(
        "cross-attention sees source padding",
        "padding",
        "NVIDIA/TensorRT-Model-Connect#643",
        "Translations change with the longest sentence of the batch.",
        lambda: Cross(False),
        lambda: Cross(True),
        ENCODER,
        module="cross_attention",
        shows=pooled,
    ),
    Case(
        "positions counted from the padding",
        "position-ids",
        "",
        "Left-padded prompts are continued otherwise than alone.",
        lambda: RowPositions(Attention, Attention, positions=True),
        lambda: Language(Attention, Attention, positions=True),
        {"expect": Causal(), "padding": "left"},
        module="place",
        shows=left_padded_answer,
    ),
    Case(
        "convolution reads padding",
        "outside-attention",
        "pytorch/audio#4205",
        "A Conformer's answer depends on the padding beside it.",
        lambda: Language(Both, Both, block=ConvolvesPadding),
        lambda: Language(Both, Both, block=ConvolvedBlock),
        ENCODER,
        0,
        "blocks.0.conv",
        pooled,
    ),
    Case(
        "statistics over padding",
        "outside-attention",
        "pytorch/audio#4205",
        "Normalisation counts the padding.",
        lambda: Language(Both, block=NormsPadding),
        lambda: Language(Both, block=NormedBlock),
        ENCODER,
        0,
        "blocks.0.time_norm",
        pooled,
    ),
    Case(
        "mean over padding",
        "outside-attention",
        "",
        "Sentence embeddings depend on the batch.",
        lambda: Classifier(False),
        lambda: Classifier(True),
        ENCODER,
        shows=pooled,
    ),
    Case(
        "two masks added overflow",
        "empty-rows",
        "huggingface/transformers#27114",
        "With left padding and fp32 the lowest number twice is −inf, and the output NaN.",
        lambda: Language(TwoMasksAdded, TwoMasksAdded),
        lambda: Language(TwoMasksClamped, TwoMasksClamped),
        CAUSAL,
        0,
        "blocks.0.attention",
        left_padded_answer,
    ),
    Case(
        "fast path truncates",
        "mode",
        "pytorch/pytorch#86120",
        "In eval mode the padded output is shorter than the input.",
        Truncating,
        Language,
        CAUSAL,
        shows=None,
    ),
)
