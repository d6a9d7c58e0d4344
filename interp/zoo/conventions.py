"""The mask is read the wrong way round, added as numbers, or multiplied; or its sentinel gives way."""

import torch
from torch import nn

from headwise.interp.masks import Causal, Window
from headwise.interp.zoo.case import Attention, ByHand, Case, Language, Plain, causal


class WithMHA(nn.Module):
    """nn.MultiheadAttention with a mask from ``mask(T)``: there True means *blocked*, and floats are added."""

    def __init__(self):
        super().__init__()
        self.mha = nn.MultiheadAttention(16, 4, batch_first=True)

    def mask(self, length):
        return ~causal(length)

    def forward(self, x, real=None):
        padding = None if real is None else ~real
        return self.mha(x, x, x, attn_mask=self.mask(x.shape[1]), key_padding_mask=padding, need_weights=False)[0]


class OnesAdded(WithMHA):
    def mask(self, length):
        return torch.ones(length, length).tril()


class KeptIsBlocked(WithMHA):
    def mask(self, length):
        return torch.ones(length, length).tril().bool()


class PaddingKept(nn.Module):
    """key_padding_mask wants True = padding and gets Hugging Face's 1 = real."""

    def __init__(self, inverted: bool):
        super().__init__()
        self.inverted = inverted
        self.mha = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x, real=None):
        padding = None if real is None else (real if self.inverted else ~real)
        return self.mha(x, x, x, key_padding_mask=padding, need_weights=False)[0]


class MaskTimesTril(Attention):
    """An additive mask of the lowest number everywhere, multiplied by triu to make it causal – or, wrongly, by tril."""

    def allowed(self, length, real):
        additive = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)
        wrong = torch.full((length, length), torch.finfo(torch.float32).min).tril(-1)
        return wrong if type(self) is MaskTimesTril else additive


class AdditiveRight(MaskTimesTril):
    pass


class ScoresTimesTril(ByHand):
    def mix(self, q, k, v, real):
        return (self.scores(q, k) * causal(q.shape[2])).softmax(-1) @ v


class MaskedAfterSoftmax(ByHand):
    def mix(self, q, k, v, real):
        return (self.scores(q, k).softmax(-1) * causal(q.shape[2])) @ v


class TrilAddedByHand(ByHand):
    def mix(self, q, k, v, real):
        return (self.scores(q, k) + torch.ones(q.shape[2], q.shape[2]).tril()).softmax(-1) @ v


class FillsWhatItKeeps(ByHand):
    """masked_fill with the mask of what may be seen."""

    def mix(self, q, k, v, real):
        return self.scores(q, k).masked_fill(causal(q.shape[2]), torch.finfo(q.dtype).min).softmax(-1) @ v


class Windowed(Attention):
    def allowed(self, length, real):
        back = torch.arange(length)[:, None] - torch.arange(length)
        return (back >= 0) & (back < 4)


class WindowInverted(Attention):
    def allowed(self, length, real):
        back = torch.arange(length)[:, None] - torch.arange(length)
        return (back >= 0) & ((back >= 4) | (back == 0))


class Minus(ByHand):
    """Hides with a finite number."""

    value = -1e9

    def mix(self, q, k, v, real):
        return self.scores(q, k).masked_fill(~self.allowed(q.shape[2], real), self.value).softmax(-1) @ v


class MinusTwenty(Minus):
    value = -20.0


class MinusHundred(Minus):
    value = -100.0


class MinFits(ByHand):
    def mix(self, q, k, v, real):
        scores = self.scores(q, k)
        return scores.masked_fill(~self.allowed(q.shape[2], real), torch.finfo(scores.dtype).min).softmax(-1) @ v


def two(wrong, right=Attention, model=Plain):
    """(bug, twin): a model whose second layer is wrong, and one whose layers are right."""
    return (lambda: model(right, wrong)), (lambda: model(right, right))


SECOND = {"layer": 1, "module": "blocks.1.attention"}
CAUSAL = {"expect": Causal()}

CASES = (
    Case(
        "zeros and ones added",
        "mask-convention",
        "pytorch/pytorch#21518",
        "A causal tril(ones) was passed as attn_mask and the loss went to zero.",
        *two(OnesAdded, WithMHA),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "kept means blocked",
        "mask-convention",
        "pytorch/pytorch#170415",
        "The same bool mask is right in one attention and inverted in the other.",
        *two(KeptIsBlocked, WithMHA),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "padding mask inverted",
        "mask-convention",
        "pytorch/pytorch#170415",
        "The model reads only the padding.",
        lambda: Language(lambda: PaddingKept(True)),
        lambda: Language(lambda: PaddingKept(False)),
        {"expect": "bidirectional"},
        0,
        "blocks.0.attention",
    ),
    Case(
        "additive mask times tril",
        "mask-convention",
        "huggingface/transformers#31673",
        "Multiplying an additive mask by tril unmasks the future.",
        *two(MaskTimesTril, AdditiveRight),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "scores times tril",
        "mask-convention",
        "huggingface/transformers#31673",
        "Hidden scores become 0, and exp(0) is 1.",
        *two(ScoresTimesTril, ByHand),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "masked after the softmax",
        "mask-convention",
        "",
        "Weights are cut after they were normalised over the future.",
        *two(MaskedAfterSoftmax, ByHand),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "tril added by hand",
        "mask-convention",
        "pytorch/pytorch#21518",
        "The mask only raises the past's scores by one.",
        *two(TrilAddedByHand, ByHand),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "masked_fill with the mask of kept keys",
        "mask-convention",
        "pytorch/pytorch#170415",
        "Only the future is seen.",
        *two(FillsWhatItKeeps, ByHand),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "window inverted",
        "mask-convention",
        "lucidrains/local-attention#5",
        "With a look-back of 1 and a window of 4, the wrong keys are hidden.",
        *two(WindowInverted, Windowed),
        {"expect": Window(3, 0)},
        **SECOND,
    ),
    Case(
        "sentinel of −20",
        "dtype",
        "",
        "Confident heads see through the mask.",
        *two(MinusTwenty, ByHand),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "sentinel of −100",
        "dtype",
        "",
        "At initialisation the mask holds; after training it does not.",
        *two(MinusHundred, ByHand),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "−1e9 in half precision",
        "dtype",
        "google/flax#982",
        "Training in fp16 raises, or gives NaN.",
        *two(Minus, MinFits),
        CAUSAL,
        **SECOND,
    ),
)
