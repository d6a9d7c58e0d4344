"""Sub-word tokens merged into the words that a person reads, and special tokens left out."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from headwise.interp.attention.axes import Axis

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_+")


def word_groups(axis: Axis) -> list[list[int]]:
    """Token indices of each word, by character offsets: letters and digits with inner apostrophes are a word, a
    punctuation mark is one.

    Tokens without a place in the text (special ones), or between words, stand alone.
    """
    if axis.offsets is None or axis.text is None:
        return [[i] for i in range(len(axis))]
    word_at = {}
    for number, match in enumerate(WORD.finditer(axis.text)):
        word_at.update(dict.fromkeys(range(*match.span()), number))
    groups: list[list[int]] = []
    previous = None
    for index, (start, end) in enumerate(axis.offsets):
        word = next((word_at[c] for c in range(start, end) if c in word_at), None)
        if word is not None and word == previous:
            groups[-1].append(index)
        else:
            groups.append([index])
        previous = word
    return groups


def groups_of(axis: Axis, words: bool, special: bool) -> tuple[list[list[int]], tuple[str, ...]]:
    groups = word_groups(axis) if words else [[i] for i in range(len(axis))]
    note = ()
    if words and len(groups) < len(axis):
        note = (f"{len(axis)} tokens merged into {len(groups)} words: keys summed, queries averaged",)
    elif words and axis.offsets is None:
        note = ("this input has no character offsets, so nothing was merged",)
    if not special and axis.special is not None:
        groups = [kept for group in groups if (kept := [i for i in group if not axis.special[i]])]
    return groups, note


def hidden_note(axis: Axis, whole: Tensor, columns: list[list[int]], quantity: str) -> tuple[str, ...]:
    kept = {i for group in columns for i in group}
    hidden = [i for i in range(len(axis)) if i not in kept]
    if not hidden:
        return ()
    names = ", ".join(dict.fromkeys(axis.labels[i] for i in hidden))
    share = (
        f", which held {float(whole[:, hidden].sum() / whole.sum()):.0%} of the weight" if quantity != "scores" else ""
    )
    return (f"left out: {names}{share}",)


def merged(whole: Tensor, rows: list[list[int]], columns: list[list[int]], quantity: str) -> Tensor:
    """Sum a group's keys, average its queries → (len(rows), len(columns))."""
    single = all(len(g) == 1 for g in rows + columns)
    if single:  # only picked, which scores of −inf survive
        return whole[[g[0] for g in rows]][:, [g[0] for g in columns]]
    return _membership(rows, whole, mean=True) @ whole @ _membership(columns, whole.T, mean=False).T


def merged_allowed(allowed: Tensor, rows: list[list[int]], columns: list[list[int]]) -> Tensor:
    """A word may see a word when any of its tokens may see any of the other's."""
    a, b = _membership(rows, allowed, mean=False), _membership(columns, allowed.T, mean=False)
    return (a @ allowed.float() @ b.T) > 0


def _membership(groups: list[list[int]], like: Tensor, mean: bool) -> Tensor:
    m = torch.zeros(len(groups), like.shape[0], device=like.device)
    for row, group in enumerate(groups):
        m[row, group] = 1 / len(group) if mean else 1.0
    return m


def names_of(axis: Axis, groups: list[list[int]]) -> tuple[str, ...]:
    names = []
    for group in groups:
        if len(group) > 1 and axis.offsets is not None and axis.text is not None:
            names.append(axis.text[axis.offsets[group[0]][0] : axis.offsets[group[-1]][1]])
        else:
            names.append(axis.labels[group[0]])
    return tuple(names)
