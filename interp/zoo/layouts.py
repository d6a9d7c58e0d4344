"""Axes are confused: batch with time, heads with batch, queries with keys. And labels with their neighbours."""

import torch
import torch.nn.functional as F
from torch import nn

from headwise.interp.masks import Bidirectional, Causal
from headwise.interp.zoo.case import (
    VOCABULARY,
    WIDTH,
    Attention,
    Block,
    ByHand,
    Case,
    Language,
    Plain,
    causal,
    padded_answer,
)
from headwise.interp.zoo.conventions import CAUSAL, SECOND, two
from headwise.interp.zoo.padding import ENCODER, Both


class OverQueries(ByHand):
    """softmax over the query axis."""

    def mix(self, q, k, v, real):
        return self.scores(q, k).masked_fill(~causal(q.shape[2]), -torch.inf).softmax(-2).nan_to_num(0) @ v


class Transposed(Attention):
    def allowed(self, length, real):
        return causal(length).T


class TimeFirst(nn.Module):
    """nn.MultiheadAttention expects (T, B, C) unless batch_first is set."""

    def __init__(self, batch_first: bool):
        super().__init__()
        self.mha = nn.MultiheadAttention(WIDTH, 4, batch_first=batch_first)

    def forward(self, x, real=None):
        return self.mha(x, x, x, need_weights=False)[0]


class BatchOnHeads(Both):
    """A padding mask (B, T, T) meets scores (B, H, T, T) from the right: its batch falls on the heads."""

    def allowed(self, length, real):
        return torch.ones(length, length, dtype=torch.bool) if real is None else real[:, None, :].expand(-1, length, -1)


class CausalOnHeads(Attention):
    """A causal mask (B, T, T) without a head axis: runs only where B = H."""

    def __init__(self, width=WIDTH, heads=4):
        super().__init__(width, heads)

    def mix(self, q, k, v, real):
        mask = causal(q.shape[2]).expand(q.shape[0], -1, -1)
        return F.scaled_dot_product_attention(q, k, v, mask)


class Squeezed(Attention):
    """squeeze() without an axis also removes a batch of one, and what was (T, C) is averaged."""

    def mix(self, q, k, v, real):
        out = super().mix(q, k, v, real)
        return out if out.shape[0] > 1 else out.flip(1)


class SharedScale(nn.Module):
    """Quantises with one scale for the whole batch, or with one a position."""

    def __init__(self, shared: bool):
        super().__init__()
        self.shared = shared
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        scale = x.abs().max() if self.shared else x.abs().amax(-1, keepdim=True)
        return self.linear((x / scale * 7).round() / 7 * scale)


class Quantised(nn.Module):
    def __init__(self, shared: bool):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.quantised = SharedScale(shared)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.quantised(x)


class Learner(Language):
    """Returns (loss, logits) when it is given labels; ``shift`` is 1 when it is right."""

    shift = 1

    def forward(self, ids, attention_mask=None, labels=None):
        logits = super().forward(ids, attention_mask)
        if labels is None:
            return {"logits": logits}
        kept = ids.shape[1] - self.shift
        loss = F.cross_entropy(logits[:, :kept].flatten(0, 1), labels[:, self.shift :].flatten())
        return {"loss": loss, "logits": logits}


class Unshifted(Learner):
    shift = 0


class ShiftedTwice(Learner):
    shift = 2


def neighbour(model):
    x = torch.randint(2, VOCABULARY, (3, 7))
    other = x.clone()
    other[2] = 1
    gap = (model(x) - model(other))[:2].abs().max()
    return f"change sample 2: samples 0 and 1 move by {float(gap):.2g}"


def loss_of_copying(model):
    ids = torch.randint(2, VOCABULARY, (2, 12))
    out = model(ids, labels=ids)
    right = F.cross_entropy(out["logits"][:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    return f"its loss is {float(out['loss']):.3f}; the next token's cross-entropy is {float(right):.3f}"


CASES = (
    Case(
        "softmax over the queries",
        "layout",
        "labmlai/annotated_deep_learning_paper_implementations#146",
        "Weights of a key sum to one, not those of a query.",
        *two(OverQueries, ByHand),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "mask transposed",
        "layout",
        "",
        "triu for tril: tokens see themselves and the future.",
        *two(Transposed),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "batch_first forgotten",
        "layout",
        "dhimasryan/MOSA-Net-Cross-Domain#10",
        "Attention runs over the batch.",
        lambda: Plain(lambda: TimeFirst(True), lambda: TimeFirst(False)),
        lambda: Plain(lambda: TimeFirst(True), lambda: TimeFirst(True)),
        {"expect": Bidirectional()},
        1,
        "blocks.1.attention",
        neighbour,
    ),
    Case(
        "batch falls on the heads",
        "layout",
        "lucidrains/vit-pytorch#71",
        "Runs only where the batch is as large as the number of heads.",
        lambda: Language(Both, BatchOnHeads),
        lambda: Language(Both, Both),
        {**ENCODER, "inputs": torch.randint(2, 37, (4, 13), generator=torch.Generator().manual_seed(2))},
        **SECOND,
        shows=padded_answer,
    ),
    Case(
        "causal mask without a head axis",
        "layout",
        "lucidrains/vit-pytorch#71",
        "Other batch sizes raise.",
        *two(CausalOnHeads),
        CAUSAL,
        **SECOND,
        shows=lambda m: _sizes(m),
    ),
    Case(
        "a batch of one is squeezed",
        "layout",
        "",
        "One sample alone gives another answer.",
        *two(Squeezed),
        CAUSAL,
        shows=lambda m: _alone(m),
    ),
    Case(
        "one scale for the batch",
        "outside-attention",
        "",
        "Quantisation makes samples and positions depend on each other.",
        lambda: Quantised(True),
        lambda: Quantised(False),
        {"expect": Causal()},
        module="quantised",
        shows=neighbour,
    ),
    Case(
        "labels not shifted",
        "labels",
        "huggingface/transformers#3711",
        "The model learns to copy its input.",
        Unshifted,
        Learner,
        CAUSAL,
        shows=loss_of_copying,
    ),
    Case(
        "labels shifted twice",
        "labels",
        "huggingface/transformers#44642",
        "The model learns to skip a token.",
        ShiftedTwice,
        Learner,
        CAUSAL,
        shows=loss_of_copying,
    ),
)


def _sizes(model):
    runs = []
    for batch in (1, 2, 3, 4):
        try:
            model(torch.randint(2, VOCABULARY, (batch, 7)))
            runs.append(str(batch))
        except RuntimeError:
            continue
    return f"runs for a batch of {', '.join(runs)}"


def _alone(model):
    x = torch.randint(2, VOCABULARY, (3, 7))
    return f"a sample alone and in company: logits differ by {float((model(x)[:1] - model(x[:1])).abs().max()):.2g}"
