"""A map of heads: those that look at the same things lie together, and each group says in words what that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import pad

from headwise.interp.analysis.comparing.compare import PLACE, Comparison, alignments_of, stack_of
from headwise.interp.analysis.comparing.places import KINDS, shares
from headwise.interp.analysis.comparing.rows import Rows, rows_of
from headwise.interp.analysis.patching.alignment import aligned
from headwise.interp.attention.call import AttentionCall, pool_cells
from headwise.interp.errors import InputError
from headwise.interp.run.capture import Capture

SIDE = 32  # cells to which patterns are pooled
GROUPS = (4, 9)  # at least, at most, of many heads
FEW = 24  # heads up to which two groups may be enough
MANY = 64  # heads of both runs up to which two directions tell enough; of more, neighbours tell more
TOLD = 0.6  # of a group's weight, by the kinds of keys that name it
VAGUE = ("far", "near")  # kinds of keys that say little
SET = 0.1  # share of weight from which on a head is set on one key
WIDE = 0.85  # entropy, 0 … 1, from which on a group looks everywhere
SHORT = {
    "itself": "own position", "before": "position before", "after": "position after", "first": "first position",
    "special": "special tokens", "same": "same token", "beside": "patches beside", "near": "nearby", "far": "far",
}  # fmt: skip
SIDES = ("one", "other")


@dataclass(frozen=True, eq=False)
class Group:
    """Heads that look alike. ``name`` says at what, ``shares`` the mean share of weight of each kind of key."""

    name: str
    count: int
    shares: dict[str, float]


@dataclass(frozen=True, eq=False)
class HeadMap:
    """``table`` a row a head: side ("one" or "other"), stack, layer, head, x, y, ``group`` (a number of ``groups``),
    then where it looks. Distances in the plane are the differences of heads for "pca" as far as two directions show
    them, and say no more than who is near whom for "tsne"."""

    table: pd.DataFrame
    groups: tuple[Group, ...]
    method: str


def head_map(what: Capture | Comparison, stack: str | None = None, groups: int | None = None, seed: int = 0) -> HeadMap:
    """Heads of a stack (the first by default) of a capture, or of both runs of a comparison, laid out by how alike they
    are.

    A head is told by its pattern, by the shares of its weight on each kind of key (``places.KINDS``) and by its
    entropy; patterns and shares are compared by the Hellinger distance (the root of weights, then Euclid). Up to 64
    heads are laid out along the two directions of largest variance, more of them by t-SNE (van der Maaten & Hinton
    2008). ``groups`` are of Ward's clustering (1963), as many as the silhouette (Rousseeuw 1987) finds best. Raises
    InputError for fewer than 3 heads, and for a stack that is not there.
    """
    sides = (what.one, what.other) if isinstance(what, Comparison) else (what,)
    stack = stack or sides[0].stacks[0]
    if stack not in sides[0].stacks:
        raise InputError(f"There is no stack {stack!r}; {sides[0].subject.name} has {', '.join(sides[0].stacks)}.")
    tables, patterns, keys = [], [], []
    for number, cap in enumerate(sides):
        own = stack_of(cap, stack)
        found = shares(cap)
        found = found[found["stack"] == own].assign(stack=stack)
        tables.append(found.assign(side=SIDES[number]))
        for call in cap.stack(own):
            rows = _rows(what, call, number)
            patterns.append(_pooled(rows.one))
            names = _names(call, [pair[number] for pair in rows.keys])
            keys += [_most(head, names) for head in rows.one]
    table = pd.concat(tables, ignore_index=True)
    kinds = [name for name in KINDS if name in table]
    table[kinds] = table[kinds].fillna(0.0)
    features = _features(
        torch.cat(_of_one_size(patterns)), table[kinds].to_numpy(float), table["entropy"].to_numpy(float)
    )
    if len(features) < 3:
        raise InputError(f"A map needs at least 3 heads; this stack has {len(features)}.")
    method = "pca" if len(features) <= MANY else "tsne"
    place = _laid_out(features, method, seed)
    number = _grouped(features, groups)
    table = table.assign(x=place[:, 0], y=place[:, 1], group=number)
    told = [[keys[row] for row in np.flatnonzero(number == g)] for g in range(number.max() + 1)]
    named = tuple(_group(table[table["group"] == g], kinds, told[g]) for g in range(number.max() + 1))
    return HeadMap(table[["side", *PLACE, "x", "y", "group", *kinds, "entropy"]], named, method)


def _rows(what: Capture | Comparison, call: AttentionCall, side: int) -> Rows:
    """The patterns of a layer on the positions that both runs have."""
    if isinstance(what, Comparison):
        one = what.one.stack(call.stack)[0] if side == 0 else what.one.stack(_first_stack(what, call))[0]
        axes = alignments_of(what.alignments, what.one, one)
        return rows_of((call, call), axes, side=side)
    axes = tuple(aligned(axis, axis) for axis in (call.query_axis, call.key_axis))
    return rows_of((call, call), axes, side=side)


def _pooled(found: Tensor) -> Tensor:
    """(H, rows, columns) of few cells: weights of keys summed, of queries averaged."""
    down, across = (-(-size // SIDE) for size in found.shape[1:])
    summed = pad(found, (0, -found.shape[2] % across)).unflatten(2, (-1, across)).sum(3)
    return torch.stack([pool_cells(head, down, 1, "mean") for head in summed])


def _names(call: AttentionCall, places: Sequence[int]) -> list[str]:
    labels = (call.key_axis.labels[place].strip() for place in places)
    return [f"patch {label}" if call.key_axis.grid and "," in label else f"“{label}”" for label in labels]


def _most(head: Tensor, labels: Sequence[str]) -> tuple[str, float]:
    """The key that takes most of a head's weight (P, K + 1), and its share."""
    given = head[:, : len(labels)].mean(0)
    most = int(given.argmax())
    return labels[most], float(given[most])


def _first_stack(what: Comparison, call: AttentionCall) -> str:
    return next(stack for stack in what.one.stacks if stack_of(what.other, stack) == call.stack)


def _of_one_size(patterns: Sequence[Tensor]) -> list[Tensor]:
    """Patterns of layers that look at other positions say nothing together: only those like the first are kept."""
    shape = patterns[0].shape[1:]
    return [p if p.shape[1:] == shape else p.new_zeros(p.shape[0], *shape) for p in patterns]


def _features(patterns: Tensor, kinds: np.ndarray, entropy: np.ndarray) -> np.ndarray:
    """(N, features), Euclid between which is the difference of heads: each of the three parts is at most 1."""
    rows = patterns.shape[1]
    looks = patterns.clamp_min(0).sqrt().flatten(1).double().numpy() / np.sqrt(2 * rows)
    return np.hstack([looks, np.sqrt(kinds.clip(0)) / np.sqrt(2), np.nan_to_num(entropy)[:, None]])


def _laid_out(features: np.ndarray, method: str, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA  # here, because scikit-learn takes a second to import

    if method == "pca":
        return PCA(2, svd_solver="full").fit_transform(features)
    from sklearn.manifold import TSNE

    perplexity = min(20.0, (len(features) - 1) / 3)  # exact: for hundreds of heads faster than the Barnes–Hut tree
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed, method="exact").fit_transform(features)


def _grouped(features: np.ndarray, groups: int | None) -> np.ndarray:
    """(N,) int: 0 for the largest group."""
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import silhouette_score

    different = len(np.unique(features.round(6), axis=0))
    most = min(GROUPS[1], different, len(features) - 1)
    least = 2 if len(features) <= FEW else GROUPS[0]
    counts = range(min(least, most), most + 1) if groups is None else (min(max(groups, 2), most),)
    tried = {}
    for count in counts:
        if count > 1:
            found = AgglomerativeClustering(count).fit_predict(features)
            tried[float(silhouette_score(features, found))] = found
    best = tried[max(tried)] if tried else np.zeros(len(features), int)
    order = np.argsort(-np.bincount(best), kind="stable")
    return np.argsort(order)[best]


def _group(members: pd.DataFrame, kinds: list[str], keys: Sequence[tuple[str, float]]) -> Group:
    """Named by the kinds of keys that take most of its weight; where that says little, by the key that takes most in
    more of its heads than any other."""
    means = {kind: float(share) for kind, share in members[kinds].mean().sort_values(ascending=False).items()}
    named, told = [], 0.0
    for kind, share in means.items():
        if told < TOLD and len(named) < 3:
            named.append(f"{SHORT[kind]} {share:.0%}")
            told += share
    spread = "spread out: " if float(members["entropy"].mean()) >= WIDE else ""
    label, count = Counter(label for label, _ in keys).most_common(1)[0]
    share = float(np.mean([share for name, share in keys if name == label]))
    if next(iter(means)) in VAGUE and share >= SET and 2 * count >= len(keys):
        named = [f"most at {label} ({share:.0%})", named[0]]
    return Group(spread + ", ".join(named), len(members), means)
