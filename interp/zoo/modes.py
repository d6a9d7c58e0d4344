"""The mask holds in one mode, path or flag and not in another; or the output depends on what ran before."""

import torch
import torch.nn.functional as F
from torch import nn

from headwise.interp.masks import Causal
from headwise.interp.zoo.case import (
    VOCABULARY,
    WIDTH,
    Attention,
    Case,
    Language,
    Plain,
    causal,
    first_tensor,
    peek_ahead,
)
from headwise.interp.zoo.conventions import CAUSAL, SECOND, two


class Encoder(nn.Module):
    """nn.TransformerEncoder made causal by its arguments."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 32, dropout=0.0, batch_first=True)
        self.layers = nn.ModuleList([layer, nn.TransformerEncoderLayer(WIDTH, 4, 32, dropout=0.0, batch_first=True)])

    def arguments(self, length):
        return {"src_mask": nn.Transformer.generate_square_subsequent_mask(length), "is_causal": True}

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, **self.arguments(ids.shape[1]))
        return x


class HintOnly(Encoder):
    """is_causal=True is a hint about the mask, not a mask: in training it raises, in eval nothing is masked."""

    def arguments(self, length):
        return {"is_causal": True}


class HintOverrides(Encoder):
    """The hint says causal, the mask says nothing is hidden: the fast path believes one, the slow path the other."""

    def arguments(self, length):
        return {"src_mask": torch.zeros(length, length, dtype=torch.bool), "is_causal": True}


class MaskInTraining(Attention):
    def allowed(self, length, real):
        return causal(length) if self.training else torch.ones(length, length, dtype=torch.bool)


class MaskInEval(Attention):
    def allowed(self, length, real):
        return causal(length) if not self.training else torch.ones(length, length, dtype=torch.bool)


class NoMaskWithGrad(Attention):
    def allowed(self, length, real):
        return torch.ones(length, length, dtype=torch.bool) if torch.is_grad_enabled() else causal(length)


class Causally(Attention):
    """Causal only because of the padding mask: without one it hides nothing."""

    def allowed(self, length, real):
        return (
            torch.ones(length, length, dtype=torch.bool)
            if real is None
            else causal(length) & real[:, None, None, :] | torch.eye(length, dtype=torch.bool)
        )


class Shows(nn.Module):
    """Returns its weights on request, by another path."""

    def __init__(self, masked: bool = True):
        super().__init__()
        self.masked = masked
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids, output_attentions: bool = False):
        q, k, v = self.qkv(self.embed(ids)).chunk(3, -1)
        if not output_attentions:
            return (self.head(F.scaled_dot_product_attention(q, k, v, is_causal=True)),)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        weights = (scores.masked_fill(~causal(ids.shape[1]), -torch.inf) if self.masked else scores).softmax(-1)
        return self.head(weights @ v), weights


class AlwaysDrops(Language):
    def forward(self, ids, attention_mask=None):
        return F.dropout(super().forward(ids, attention_mask), 0.2)  # training=True is its default


class KeepsState(nn.Module):
    """A recurrence that goes on from where the last call left it."""

    def __init__(self, keeps: bool):
        super().__init__()
        self.keeps, self.state = keeps, None
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.recurrence = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, ids):
        state = self.state if self.keeps and self.state is not None and self.state.shape[1] == ids.shape[0] else None
        out, state = self.recurrence(self.embed(ids), state)
        self.state = state.detach() if self.keeps else None
        return out


class MaskOfFirstLength(Attention):
    """The mask is made once; for shorter inputs its last rows are taken instead of its first."""

    def __init__(self):
        super().__init__()
        self.mask = None

    def allowed(self, length, real):
        if self.mask is None or len(self.mask) < length:
            self.mask = causal(length)
        return self.mask[-length:, :length]


def both_modes(model):
    with torch.no_grad():
        quiet = peek_ahead(model.eval())
    try:
        with torch.enable_grad():
            return f"eval: {quiet}; train: {peek_ahead(model.train())}"
    except RuntimeError as error:
        return f"eval: {quiet}; train raises: {error}"
    finally:
        model.eval()


def asked(model):
    ids = torch.randint(2, VOCABULARY, (1, 8))
    gap = (first_tensor(model(ids)) - first_tensor(model(ids, output_attentions=True))).abs().max()
    return f"asked for its weights, it answers differently by {float(gap):.2g}"


def twice(model):
    ids = torch.randint(2, VOCABULARY, (1, 8))
    return f"the same input twice: outputs differ by {float((model(ids) - model(ids)).abs().max()):.2g}"


def long_then_short(model):
    ids = torch.randint(2, VOCABULARY, (1, 8))
    short = model(ids[:, :4])
    model(ids)
    return (
        "a short input before and after a long one: outputs differ by "
        f"{float((model(ids[:, :4]) - short).abs().max()):.2g}"
    )


CASES = (
    Case(
        "is_causal without a mask",
        "mode",
        "pytorch/pytorch#96941",
        "Raises in training, and sees the future in eval.",
        HintOnly,
        Encoder,
        CAUSAL,
        0,
        "layers.0",
        both_modes,
    ),
    Case(
        "the hint and the mask disagree",
        "mode",
        "pytorch/pytorch#131254",
        "The mask that was passed is ignored on one path.",
        HintOverrides,
        Encoder,
        CAUSAL,
        0,
        "layers.0",
        both_modes,
    ),
    Case(
        "masked in training only",
        "mode",
        "",
        "Evaluation is too good.",
        *two(MaskInTraining),
        CAUSAL,
        **SECOND,
        shows=both_modes,
    ),
    Case(
        "masked in eval only",
        "mode",
        "",
        "Training learns to copy.",
        *two(MaskInEval),
        CAUSAL,
        **SECOND,
        shows=both_modes,
    ),
    Case(
        "unmasked with gradient",
        "mode",
        "",
        "The path with gradients has no mask.",
        *two(NoMaskWithGrad),
        CAUSAL,
        **SECOND,
        shows=both_modes,
    ),
    Case(
        "causal only with a padding mask",
        "mode",
        "pytorch/torchtune#959",
        "Without an attention_mask the future is seen.",
        *two(Causally, model=Language),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "asking for weights drops the mask",
        "mode",
        "",
        "The picture of the weights is not of the model that runs.",
        lambda: Shows(False),
        Shows,
        CAUSAL,
        shows=asked,
    ),
    Case(
        "dropout that never stops",
        "mode",
        "",
        "F.dropout without training=self.training.",
        AlwaysDrops,
        Language,
        CAUSAL,
        shows=twice,
    ),
    Case(
        "state kept between calls",
        "state",
        "",
        "The second batch continues the first.",
        lambda: KeepsState(True),
        lambda: KeepsState(False),
        {"expect": Causal()},
        module="recurrence",
        shows=twice,
    ),
    Case(
        "mask of the longest input so far",
        "state",
        "",
        "After a long input, short ones see the future.",
        lambda: Plain(MaskOfFirstLength, MaskOfFirstLength),
        Plain,
        CAUSAL,
        shows=long_then_short,
    ),
)
