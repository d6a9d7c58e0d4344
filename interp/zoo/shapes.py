"""Windows, prefixes, packed documents, diagonals: the mask has the wrong shape."""

import torch

from headwise.interp.masks import Causal, Prefix, Window
from headwise.interp.zoo.case import Attention, ByHand, Case, Language, Plain, causal
from headwise.interp.zoo.conventions import CAUSAL, SECOND, two


def back(length):
    """(T, T): how many tokens before the query the key stands."""
    return torch.arange(length)[:, None] - torch.arange(length)


class Bidirectional(Attention):
    def allowed(self, length, real):
        everything = torch.ones(length, length, dtype=torch.bool)
        return everything if real is None else everything & real[:, None, None, :]


class OneAhead(Attention):
    def allowed(self, length, real):
        return torch.ones(length, length, dtype=torch.bool).tril(1)


class OneHeadFree(Attention):
    def allowed(self, length, real):
        mask = causal(length).repeat(self.heads, 1, 1)
        mask[2] = True
        return mask


class OnlyWithCache(Attention):
    """The causal mask is built where the cache is set up; without one there is none."""

    cache_is_set_up = False

    def allowed(self, length, real):
        return super().allowed(length, real) if self.cache_is_set_up else torch.ones(length, length, dtype=torch.bool)


class Windowed(Attention):
    left = 3

    def allowed(self, length, real):
        return (back(length) >= 0) & (back(length) <= self.left)


class WiderByOne(Windowed):
    left = 4


class NarrowerByOne(Windowed):
    left = 2


class SelfHidden(ByHand):
    """tril(diagonal=−1): the first query sees nothing."""

    def allowed(self, length, real):
        return torch.ones(length, length, dtype=torch.bool).tril(-1)


class WithPrefix(Attention):
    n = 4

    def allowed(self, length, real):
        return causal(length) | (torch.arange(length) < self.n)


class PrefixTooLong(WithPrefix):
    n = 6


class Documents(Attention):
    """segment ids (B, T) → each document sees its own past."""

    def same(self, segments):
        return segments[:, :, None] == segments[:, None, :]

    def forward(self, x, segments=None):
        self.segments = segments
        return super().forward(x)

    def allowed(self, length, real):
        return causal(length) if self.segments is None else (causal(length) & self.same(self.segments))[:, None]


class Undivided(Documents):
    def same(self, segments):
        return torch.ones_like(segments[:, :, None] == segments[:, None, :])


class SharesBoundary(Documents):
    """Documents overlap by their last token."""

    def same(self, segments):
        before = torch.cat([segments[:, :1], segments[:, :-1]], 1)
        return (segments[:, :, None] == segments[:, None, :]) | (before[:, :, None] == segments[:, None, :])


class PackedModel(Language):
    def forward(self, ids, segments=None):
        x = self.embed(ids)
        if self.place is not None:
            x = x + self.place(self.places(ids, segments))
        for block in self.blocks:
            x = block(x, segments)
        return self.head(x)

    def places(self, ids, segments):
        row = torch.arange(ids.shape[1])[None].expand_as(ids)
        if segments is None:
            return row
        new = torch.cat([torch.ones_like(segments[:, :1], dtype=torch.bool), segments[:, 1:] != segments[:, :-1]], 1)
        return row - torch.where(new, row, 0).cummax(1).values


class PlacesRunOn(PackedModel):
    def places(self, ids, segments):
        return torch.arange(ids.shape[1])[None].expand_as(ids)


def in_documents(model, ids, segments):
    return model(ids, segments)


def packed_answer(model):
    ids = torch.randint(2, 37, (1, 8))
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    gap = (model(ids, segments)[:, 4:] - model(ids[:, 4:], segments[:, :4])).abs().max()
    return f"the second document, packed and alone: logits differ by {float(gap):.2g}"


PACKED = {
    "expect": Causal(),
    "packed": in_documents,
    "inputs": torch.randint(2, 37, (3, 24), generator=torch.Generator().manual_seed(1)),
}
WINDOW = {"expect": Window(3, 0)}
PREFIX = {"expect": Prefix(4)}

CASES = (
    Case(
        "decoder built as encoder",
        "future-leak",
        "huggingface/transformers#48745",
        "is_decoder=True still builds a bidirectional mask.",
        lambda: Language(Bidirectional, Bidirectional),
        Language,
        CAUSAL,
        0,
        "blocks.0.attention",
    ),
    Case(
        "no mask without a cache",
        "future-leak",
        "pytorch/torchtune#959",
        "The causal mask exists only when caches are set up.",
        *two(OnlyWithCache),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "one token ahead",
        "future-leak",
        "",
        "tril(diagonal=1): the loss is too good to be true.",
        *two(OneAhead),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "one head without a mask",
        "future-leak",
        "",
        "Head 2 of layer 1 sees everything.",
        *two(OneHeadFree),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "window wider by one",
        "window",
        "",
        "sliding_window=4 sees five keys.",
        *two(WiderByOne, Windowed),
        WINDOW,
        **SECOND,
    ),
    Case(
        "window narrower by one",
        "window",
        "",
        "sliding_window=4 sees three keys.",
        *two(NarrowerByOne, Windowed),
        WINDOW,
        **SECOND,
    ),
    Case(
        "window dropped in a layer",
        "window",
        "vllm-project/vllm#49795",
        "One layer forgets its window.",
        *two(Attention, Windowed),
        WINDOW,
        **SECOND,
    ),
    Case(
        "window on a full layer",
        "window",
        "vllm-project/vllm#49795",
        "Layers that should see everything got the window of their neighbours.",
        lambda: Plain(Windowed, Windowed),
        lambda: Plain(Windowed, Attention),
        {"expect": [Window(3, 0), Causal() & (Window(99, 0) | Window(3, 0))]},
        **SECOND,
    ),
    Case(
        "first query sees nothing",
        "empty-rows",
        "pytorch/pytorch#190486",
        "NaN on one path and zeros on the other.",
        *two(SelfHidden, ByHand),
        CAUSAL,
        **SECOND,
    ),
    Case(
        "prefix is causal",
        "prefix",
        "",
        "The prompt of a prefix-LM does not see itself.",
        *two(Attention, WithPrefix),
        PREFIX,
        **SECOND,
    ),
    Case(
        "prefix too long",
        "prefix",
        "",
        "Two tokens of the answer belong to the prefix.",
        *two(PrefixTooLong, WithPrefix),
        PREFIX,
        **SECOND,
    ),
    Case(
        "prefix-LM without a mask",
        "prefix",
        "",
        "Everything sees everything.",
        *two(Bidirectional, WithPrefix),
        PREFIX,
        **SECOND,
    ),
    Case(
        "documents not separated",
        "packed",
        "huggingface/transformers#32487",
        "Packed documents see each other in one layer.",
        lambda: PackedModel(Documents, Undivided),
        lambda: PackedModel(Documents, Documents),
        PACKED,
        **SECOND,
        shows=packed_answer,
    ),
    Case(
        "documents share a token",
        "packed",
        "",
        "The first token of a document sees the one before it.",
        lambda: PackedModel(Documents, SharesBoundary),
        lambda: PackedModel(Documents, Documents),
        PACKED,
        **SECOND,
        shows=packed_answer,
    ),
    Case(
        "positions run on over documents",
        "position-ids",
        "",
        "Each packed document starts where the last one ended.",
        lambda: PlacesRunOn(Documents, Documents, positions=True),
        lambda: PackedModel(Documents, Documents, positions=True),
        PACKED,
        shows=packed_answer,
    ),
)
