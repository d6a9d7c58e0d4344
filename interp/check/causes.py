"""From evidence to a class, a sentence, the likely cause and its fix. One rule a function, the most telling first.

The words are in ``findings``; here is what tells one cause from another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from headwise.interp.check.expectation import Expectation
from headwise.interp.check.findings import Verdict, verdict
from headwise.interp.check.findings.kinds import UNKNOWN
from headwise.interp.check.findings.operations import CHOOSES
from headwise.interp.check.locate import Evidence, Operation
from headwise.interp.check.told import FAR, given_floats, scores
from headwise.interp.masks import Bidirectional, Causal, Dense, Packed, Prefix, Window, recognise


def explain(evidence: Evidence, expect: Expectation, broken: Tensor) -> Verdict:
    """The verdict on a place where content flows that the mask forbids. ``broken`` (T, T): forbidden edges of the
    output. Its cause is said where an experiment has shown it, and nowhere else.
    """
    return proven(_told(evidence, expect, broken), evidence)


def proven(told: Verdict, evidence: Evidence) -> Verdict:
    """The verdict with a cause only where an experiment has shown one."""
    proof = evidence.proof
    if proof is None:
        return replace(told, cause=UNKNOWN, fix="", sure="")
    if told.sure or proof.kind == "mask":
        return replace(told, sure="certain")
    return _carried(evidence, told)


def _told(evidence: Evidence, expect: Expectation, broken: Tensor) -> Verdict:
    if evidence.inside == "attention":
        for rule in RULES:
            if (told := rule(evidence, expect)) is not None:
                return told
        return _by_promise(evidence, expect, broken)
    return _unnormalised(evidence) or _outside(evidence)


def _carried(evidence: Evidence, told: Verdict) -> Verdict:
    """The operations that were shown to carry it."""
    proof = evidence.proof
    words = " and ".join(proof.operations)
    if proof.kind == "choice":
        return verdict("chooses:choice", operation=words, operations=words)
    made = verdict(f"mixes:{proof.kind}", operations=words)
    return replace(made, says=told.says, cls=told.cls) if evidence.inside == "attention" else made


def _softmax_axis(e: Evidence, expect) -> Verdict | None:
    for o in _named(e, "softmax"):
        square = len(o.shape) >= 3 and o.shape[-1] == o.shape[-2]
        if isinstance(o.dim, int) and square and o.dim % len(o.shape) != len(o.shape) - 1:
            return verdict("softmax-over-an-axis", dim=o.dim, shape=o.shape)
    if e.weights is not None and e.call is not None:
        rows, columns = e.weights.sum(-1), e.weights.sum(-2)
        if _near_one(columns) and not _near_one(rows):
            return verdict("softmax-over-queries")
    return None


def _added(e: Evidence, expect) -> Verdict | None:
    """A 0/1 mask added to the scores shifts them by one and hides nothing."""
    masks = [m for m in (given_floats(e.call),) if m is not None]
    masks += [o.mask for o in _named(e, "add") if o.mask is not None]
    for mask in masks:
        if set(torch.unique(mask.float()).tolist()) == {0.0, 1.0}:
            return verdict("zeros-and-ones-added")
    return None


def _multiplied(e: Evidence, expect) -> Verdict | None:
    """A score times zero is zero, and exp(0) = 1."""
    for o in _named(e, "mul"):
        if o.mask is not None and o.mask.shape[-1] == o.mask.shape[-2] and bool((o.mask == 0).any()):
            return verdict("multiplied")
    if e.call is not None and e.observed is not None:
        seen, hidden = scores(e.call, 0), ~e.expected
        if hidden.any() and bool((seen[..., hidden] == 0).all()) and bool((seen[..., ~hidden] != 0).any()):
            return verdict("scores-of-zero")
    mask = given_floats(e.call)
    if mask is not None and mask.ndim >= 2 and mask.shape[-1] == mask.shape[-2]:
        square = mask.reshape(-1, *mask.shape[-2:])[0].float().cpu()
        future = torch.ones_like(square).triu(1).bool()
        if bool((square[future] == 0).all()) and bool((square[~future] < -1e4).any()):
            return verdict("additive-times-tril")
    return None


def inverted(e: Evidence, expect) -> Verdict | None:
    """The complement of the promise, empty rows aside."""
    if e.observed is None or bool(e.expected.all()):
        return None
    rows = (~e.expected).any(1)
    inverse = torch.equal(e.observed[rows], ~e.expected[rows])
    # one polarity swapped in a combination (causal & ~window): every promised key beside the diagonal is hidden
    if inverse or (not bool((e.observed & e.expected).any()) and bool(e.observed.any())):
        return verdict("inverted")
    causal = Causal().dense(*e.expected.shape)
    off = ~torch.eye(len(causal), dtype=torch.bool)
    if expect.has(Window) and torch.equal(e.observed & causal & off, causal & ~e.expected & off):
        return verdict("window-inverted")
    return None


def transposed(e: Evidence, expect) -> Verdict | None:
    if e.observed is None or torch.equal(e.expected, e.expected.T):
        return None
    return verdict("transposed") if torch.equal(e.observed, e.expected.T) else None


def _sentinel(e: Evidence, expect) -> Verdict | None:
    """Forbidden scores that are finite and within reach of real ones."""
    if e.call is None or e.weights is None:
        return None
    fills = ("masked_fill", "masked_fill_", "where")
    values = [o.value for o in e.operations if o.name in fills and o.value is not None]
    if (mask := given_floats(e.call)) is not None:
        values += [v for v in torch.unique(mask.float()).tolist() if v < -1][:1]
    values += [float(o.mask.min()) for o in _named(e, "add") if o.mask is not None and o.mask.is_floating_point()]
    weak = [v for v in values if FAR < v < -1]
    return verdict("weak-sentinel", value=weak[0]) if weak else None


def _wrong_axis(e: Evidence, expect) -> Verdict | None:
    """A mask that falls on other axes than (B, H, Q, K)."""
    if e.call is None:
        return None
    masks = [e.call.given] if e.call.given is not None else [o.mask for o in e.operations if o.mask is not None]
    allowed = e.weights > 0
    apart = e.call.heads > 1 and not bool((allowed == allowed[:1]).all())
    return verdict("batch-on-heads") if apart and e.call.batch == e.call.heads and masks else None


def _diagonal(e: Evidence, expect) -> Verdict | None:
    """Causal, but off by a diagonal."""
    if e.observed is None or not expect.is_causal(e.expected.shape[0]) or expect.has(Packed):
        return None
    length = e.observed.shape[0]
    for ahead in range(1, min(4, length - 2)):
        if torch.equal(e.observed, Causal(ahead).dense(length, length)):
            return verdict("off-by-a-diagonal", ahead=ahead, wider=ahead + 1, s="s" if ahead > 1 else "")
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
        return verdict("window-width", left=found.left, promised=promised.left, by=by)
    return verdict("window-dropped" if isinstance(found, Causal | Bidirectional) else "window-passed")


RULES = (
    _softmax_axis,
    _added,
    _multiplied,
    inverted,
    transposed,
    _sentinel,
    _wrong_axis,
    _diagonal,
    _width,
)


def _by_promise(e: Evidence, expect: Expectation, broken: Tensor) -> Verdict:
    if e.windows:
        return verdict("windows-meet" if e.windows < e.length else "keys-among-others", keys=e.windows)
    wrong = e.observed & ~e.expected if e.observed is not None and bool((e.observed & ~e.expected).any()) else broken
    if expect.has(Packed) and not bool((wrong & _same_document(expect, wrong)).any()):
        return verdict("documents-meet")
    if expect.has(Prefix):
        return verdict("beyond-the-prefix")
    if bool(wrong.triu(1).any()) and expect.is_causal(len(wrong)):
        if e.observed is not None and bool(e.observed.all()):
            return verdict("no-causal-mask")
        return verdict("holes-in-the-mask", heads=f"head {e.heads[0]} of it only" if e.heads else "every head")
    return verdict("keys-beyond-the-window" if expect.has(Window) or expect.has(Dense) else "hidden-keys-seen")


def _unnormalised(e: Evidence) -> Verdict | None:
    """Weights are zero where they should be, but were normalised before they were cut."""
    if e.weights is None or bool((e.expected.sum(-1) == 0).any()):
        return None
    cut = bool((e.weights.sum(-1) < 0.999).any()) and not e.call.told
    return verdict("masked-after-softmax") if cut else None


def _outside(e: Evidence) -> Verdict:
    sorts = [o for o in e.operations if o.name in CHOOSES and not _over_features(o, e.length)]
    if sorts:
        return verdict("chooses", operation=sorts[0].name)
    return verdict("mixes")


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
