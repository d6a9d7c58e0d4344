"""From evidence to a class, a sentence, the likely cause and its fix. One rule a function, the most telling first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from headwise.interp.check.expectation import Expectation
from headwise.interp.check.locate import POOLS, SORTS, Evidence, Operation
from headwise.interp.masks import Bidirectional, Causal, Dense, Packed, Prefix, Window, recognise


@dataclass(frozen=True)
class Verdict:
    cls: str
    says: str  # what happens, as the middle of a sentence: "layer 1 sees the future"
    cause: str
    fix: str
    sure: str = "likely"


def explain(evidence: Evidence, expect: Expectation, broken: Tensor) -> Verdict:
    """The verdict on a place where content flows that the mask forbids. ``broken`` (T, T): forbidden edges of the
    output.
    """
    if evidence.inside == "attention":
        for rule in (
            _softmax_axis,
            _added,
            _multiplied,
            _inverted,
            _transposed,
            _sentinel,
            _wrong_axis,
            _diagonal,
            _width,
        ):
            if (verdict := rule(evidence, expect)) is not None:
                return verdict
        return _by_promise(evidence, expect, broken)
    if (verdict := _unnormalised(evidence, expect)) is not None:
        return verdict
    return _outside(evidence)


def _softmax_axis(e: Evidence, expect) -> Verdict | None:
    for o in _named(e, "softmax"):
        if (
            isinstance(o.dim, int)
            and len(o.shape) >= 3
            and o.shape[-1] == o.shape[-2]
            and o.dim % len(o.shape) != len(o.shape) - 1
        ):
            return Verdict(
                "layout",
                "normalises its weights over the queries, so that every row depends on later ones",
                f"softmax runs over axis {o.dim} of scores {o.shape}: the query axis",
                "use softmax(dim=-1), the key axis",
                "certain",
            )
    if e.weights is not None and e.call is not None:
        rows, columns = e.weights.sum(-1), e.weights.sum(-2)
        if _near_one(columns) and not _near_one(rows):
            return Verdict(
                "layout",
                "normalises over the queries instead of the keys",
                "softmax over the query axis",
                "use softmax(dim=-1)",
            )
    return None


def _added(e: Evidence, expect) -> Verdict | None:
    """A 0/1 mask added to the scores shifts them by one and hides nothing."""
    given = [m for m in (e.call.given if e.call is not None else None,) if m is not None and m.is_floating_point()]
    given += [o.mask for o in _named(e, "add") if o.mask is not None]
    for mask in given:
        values = set(torch.unique(mask.float()).tolist())
        if values and values <= {0.0, 1.0} and len(values) == 2:
            return Verdict(
                "mask-convention",
                "adds a mask of zeros and ones to its scores, which hides nothing",
                "a 0/1 float mask is added, not applied: it raises some scores by 1",
                "pass a bool mask, or 0 and −inf",
                "certain",
            )
    return None


def _multiplied(e: Evidence, expect) -> Verdict | None:
    """A score times zero is zero, and exp(0) = 1."""
    for o in _named(e, "mul"):
        if o.mask is not None and o.mask.shape[-1] == o.mask.shape[-2] and bool((o.mask == 0).any()):
            return Verdict(
                "mask-convention",
                "multiplies its scores or its mask by a mask, which leaves forbidden scores at 0 instead of −inf",
                "a hidden score becomes 0, and exp(0) = 1",
                "use scores.masked_fill(~allowed, −inf) before the softmax",
            )
    call = e.call
    if call is not None and e.observed is not None:
        scores = call.score_band(0, call.queries)[0].float().cpu()
        hidden = ~e.expected
        if hidden.any() and bool((scores[..., hidden] == 0).all()) and bool((scores[..., ~hidden] != 0).any()):
            return Verdict(
                "mask-convention",
                "gives every forbidden key a score of exactly 0",
                "the scores are multiplied by a 0/1 mask",
                "use scores.masked_fill(~allowed, −inf) before the softmax",
                "certain",
            )
    mask = call.given if call is not None else None
    if mask is not None and mask.is_floating_point() and mask.ndim >= 2 and mask.shape[-1] == mask.shape[-2]:
        square = mask.reshape(-1, *mask.shape[-2:])[0].float().cpu()
        future = torch.ones_like(square).triu(1).bool()
        if bool((square[future] == 0).all()) and bool((square[~future] < -1e4).any()):
            return Verdict(
                "mask-convention",
                "gives the future a mask value of 0, which lets it through",
                "an additive mask was multiplied by tril",
                "combine masks as bool, or add them; never multiply an additive mask",
                "certain",
            )
    return None


def _inverted(e: Evidence, expect) -> Verdict | None:
    """The complement of the promise, empty rows aside."""
    if e.observed is None or bool(e.expected.all()):
        return None
    rows = (~e.expected).any(1)
    inverse = torch.equal(e.observed[rows], ~e.expected[rows])
    # one polarity swapped in a combination (causal & ~window): every promised key beside the diagonal is hidden
    if inverse or (not bool((e.observed & e.expected).any()) and bool(e.observed.any())):
        return Verdict(
            "mask-convention",
            "sees exactly what it should not: its mask is inverted",
            "True means block in nn.MultiheadAttention and keep in scaled_dot_product_attention",
            "negate the mask with ~",
            "certain",
        )
    causal = Causal().dense(*e.expected.shape)
    off = ~torch.eye(len(causal), dtype=torch.bool)
    if expect.has(Window) and torch.equal(e.observed & causal & off, causal & ~e.expected & off):
        return Verdict(
            "mask-convention",
            "sees only what lies beyond its window",
            "the window test is inverted",
            "keep q − k ≤ left",
            "certain",
        )
    return None


def _transposed(e: Evidence, expect) -> Verdict | None:
    if e.observed is None or torch.equal(e.expected, e.expected.T):
        return None
    if torch.equal(e.observed, e.expected.T):
        return Verdict(
            "layout",
            "uses its mask transposed: keys see queries",
            "the mask's query and key axes are swapped (triu for tril, or .T)",
            "the mask is (queries, keys): allowed[q, k] = k <= q",
            "certain",
        )
    return None


def _sentinel(e: Evidence, expect) -> Verdict | None:
    """Forbidden scores that are finite and within reach of real ones."""
    if e.call is None or e.weights is None:
        return None
    values = [
        o.value for o in e.operations if o.name in ("masked_fill", "masked_fill_", "where") and o.value is not None
    ]
    mask = e.call.given
    if mask is not None and mask.is_floating_point():
        values += [v for v in torch.unique(mask.float()).tolist() if v < -1][:1]
    values += [float(o.mask.min()) for o in _named(e, "add") if o.mask is not None and o.mask.is_floating_point()]
    weak = [v for v in values if -5_000 < v < -1]
    if weak:
        return Verdict(
            "dtype",
            f"hides keys with a score of {weak[0]:g}, which a large score outweighs",
            f"the sentinel {weak[0]:g} is finite and too close to real scores",
            "use −inf, or torch.finfo(scores.dtype).min",
            "certain",
        )
    return None


def _wrong_axis(e: Evidence, expect) -> Verdict | None:
    """A mask that falls on other axes than (B, H, Q, K)."""
    call = e.call
    mask = call.given if call is not None else None
    if call is None:
        return None
    masks = [mask] if mask is not None else [o.mask for o in e.operations if o.mask is not None]
    allowed = e.weights > 0
    if call.heads > 1 and not bool((allowed == allowed[:1]).all()) and call.batch == call.heads and masks:
        return Verdict(
            "layout",
            "gives each head another sample's mask",
            "the mask's batch axis is broadcast to the heads",
            "make it (B, 1, Q, K)",
        )
    return None


def _diagonal(e: Evidence, expect) -> Verdict | None:
    """Causal, but off by a diagonal."""
    if e.observed is None or not expect.is_causal(e.expected.shape[0]) or expect.has(Packed):
        return None
    length = e.observed.shape[0]
    for offset in range(1, min(4, length - 2)):
        if torch.equal(e.observed, Causal(offset).dense(length, length)):
            return Verdict(
                "future-leak",
                f"sees {offset} token{'s' if offset > 1 else ''} ahead: its diagonal is off by {offset}",
                f"tril(diagonal={offset}) or triu(diagonal={offset + 1}) was used",
                "tril(diagonal=0) keeps the query itself and the past",
                "certain",
            )
    return None


def _width(e: Evidence, expect) -> Verdict | None:
    if e.observed is None or not expect.has(Window):
        return None
    future = (e.observed & ~e.expected).triu(1).any()
    if bool(future) and expect.is_causal(e.expected.shape[0]):
        return None
    found = recognise(e.observed)
    promised = next(m for m in expect.parts(Window))
    if isinstance(found, Window):
        wide = found.left - promised.left
        by = f"wider by {wide}" if wide > 0 else f"narrower by {-wide}" if wide < 0 else "shifted"
        return Verdict(
            "window",
            f"sees back {found.left} instead of {promised.left} keys: its window is {by}",
            "Hugging Face's sliding_window=W counts the query itself, "
            "flash-attention's window_size=(W, 0) sees one key more",
            f"keep q − k <= {promised.left}",
            "certain",
        )
    if isinstance(found, Causal | Bidirectional):
        return Verdict(
            "window",
            "has no window at all",
            "the window is dropped on this path or layer",
            "hand the window mask to this layer",
            "certain",
        )
    return Verdict(
        "window",
        "sees beyond its window",
        "the window mask is built wrongly for this layer",
        "compare the picture with the promise",
    )


def _by_promise(e: Evidence, expect: Expectation, broken: Tensor) -> Verdict:
    wrong = e.observed & ~e.expected if e.observed is not None and bool((e.observed & ~e.expected).any()) else broken
    ahead = bool(wrong.triu(1).any())
    head = f"head {e.heads[0]} of it only" if e.heads else "every head"
    if expect.has(Packed) and not bool((wrong & _same_document(expect, wrong)).any()):
        return Verdict(
            "packed",
            "lets documents see each other",
            "the document mask does not reach this layer, or its ids are wrong",
            "allow a key only where segment_ids[q] == segment_ids[k]",
        )
    if expect.has(Prefix):
        return Verdict(
            "prefix",
            "sees the future beyond the prefix",
            "the two-way part of the mask is longer than the prefix",
            "allow k <= q or k < prefix length, of each sample",
        )
    if ahead:
        full = e.observed is not None and bool(e.observed.all())
        cause = "no causal mask reaches this attention" if full else f"the causal mask has holes here, in {head}"
        return Verdict(
            "future-leak",
            "sees the future",
            cause,
            "pass is_causal=True or a causal mask to this attention",
            "certain" if full else "likely",
        )
    if expect.has(Window) or expect.has(Dense):
        return Verdict(
            "window",
            "sees keys that its mask hides",
            "the mask is not applied as promised here",
            "compare the picture with the promise",
        )
    return Verdict(
        "future-leak",
        "sees keys that its mask hides",
        "the mask is not applied as promised here",
        "compare the picture with the promise",
    )


def _unnormalised(e: Evidence, expect) -> Verdict | None:
    """Weights are zero where they should be, but were normalised before they were cut."""
    if e.weights is None or bool((e.expected.sum(-1) == 0).any()):
        return None
    rows = e.weights.sum(-1)
    if bool((rows < 0.999).any()) and not e.call.told:
        return Verdict(
            "mask-convention",
            "masks its weights after the softmax, whose denominator still counts the hidden keys",
            "weights are multiplied by the mask after normalisation",
            "mask the scores with −inf before the softmax",
            "certain",
        )
    return None


def _outside(e: Evidence) -> Verdict:
    sorts = [o for o in e.operations if o.name in SORTS and not _over_features(o, e.length)]
    if sorts:
        return Verdict(
            "routing",
            f"chooses with {sorts[0].name} over the whole sequence",
            f"{sorts[0].name} on a tensor {sorts[0].shape} looks at every position to decide about one",
            "choose for each position from its own past, or say that the model is not causal",
        )
    kind = e.type.lower()
    operation = next((o.name for o in e.operations if o.name in POOLS and o.name != "linear"), None)
    words = {
        "conv": (
            "a convolution that is padded on both sides reads ahead",
            "pad on the left by (kernel − 1)·dilation only",
        ),
        "batchnorm": ("statistics are taken over time", "normalise each position by itself (LayerNorm over features)"),
        "instancenorm": (
            "statistics are taken over time",
            "normalise each position by itself (LayerNorm over features)",
        ),
        "groupnorm": ("statistics are taken over time", "normalise each position by itself (LayerNorm over features)"),
        "layernorm": ("the norm runs over the time axis too", "normalise over features only: normalized_shape = (C,)"),
        "pool": ("pooling windows reach ahead", "pool over the past only"),
        "lstm": ("a bidirectional recurrence reads backwards", "use bidirectional=False"),
        "gru": ("a bidirectional recurrence reads backwards", "use bidirectional=False"),
        "rnn": ("a bidirectional recurrence reads backwards", "use bidirectional=False"),
        "linear": (
            "the layer multiplies along the time axis",
            "apply it along features, or mask its weight to a triangle",
        ),
        "upsample": ("interpolation reads its neighbours on both sides", "repeat past values instead"),
    }
    cause, fix = next((v for k, v in words.items() if k in kind), (None, None))
    if cause is None:
        cause = (
            f"{operation} mixes positions"
            if operation
            else "positions are mixed here, by something other than attention weights"
        )
        fix = "take statistics over features, or over the past only"
    return Verdict("outside-attention", "mixes positions that should stay apart", cause, fix)


def _over_features(o: Operation, length: int) -> bool:
    """Top-k over experts or features of one position is fine; over time, or over everything at once, is not."""
    dim = (
        o.dim if isinstance(o.dim, int) else -1 if o.name in ("topk", "sort", "argsort", "msort", "kthvalue") else None
    )
    return dim is not None and bool(o.shape) and o.shape[dim % len(o.shape)] != length


def _named(e: Evidence, word: str) -> Iterator[Operation]:
    return (o for o in e.operations if word in o.name)


def _near_one(sums: Tensor) -> bool:
    return bool(((sums - 1).abs() < 1e-3).all())


def _same_document(expect: Expectation, square: Tensor) -> Tensor:
    documents = expect.parts(Packed)[0]
    return documents.dense(*square.shape)
