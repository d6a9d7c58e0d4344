"""What is wrong with what a mask says: against a promise, or by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise.interp.check.lint.naming import pattern
from headwise.interp.check.lint.problems import Problem, problem
from headwise.interp.masks import Causal, Mask, Prefix, Window, recognise


def judge_alone(four: Tensor, problems: list[Problem]) -> None:
    """Without a promise: patterns that are never meant."""
    square = pattern(four)[0]
    found = recognise(square)
    queries, keys = four.shape[-2:]
    if isinstance(found, Window) and queries == keys and found.left == 0 and found.right >= max(1, keys - 2):
        problems.append(problem("future-only"))
    if isinstance(found, Causal) and found.offset not in (0, keys - queries):
        problems.append(problem("diagonal", ahead=found.offset))
    if queries == keys:
        for ahead in (1, 2):
            if keys > ahead + 2 and torch.equal(square, Causal(ahead).dense(queries, keys)):
                problems.append(problem("diagonal-ahead", ahead=ahead))


def judge_against(four: Tensor, expect: Mask, problems: list[Problem]) -> None:
    """The first sample and head that differ from the promise, padding keys aside."""
    for b in range(four.shape[0]):
        for h in range(four.shape[1]):
            seen = four[b, h]
            want = expect.dense(*seen.shape, b=b, h=h)
            if torch.equal(seen, want) or torch.equal(seen, ~want):
                continue
            padded = seen | ~seen.any(0)[None, :]
            if torch.equal(seen & want, seen) and torch.equal(padded & want, want):
                continue  # the promise, less some padding keys
            problems.append(_difference(seen, want, expect))
            return


def _difference(seen: Tensor, want: Tensor, expect: Mask) -> Problem:
    if seen.shape[0] == seen.shape[1] and torch.equal(seen, want.T):
        return problem("transposed")
    found, extra = recognise(seen), seen & ~want
    query, key = (extra if bool(extra.any()) else seen ^ want).nonzero()[0].tolist()
    edge = {"query": query, "key": key, "found": found, "promise": expect}
    if isinstance(found, Window) and isinstance(expect, Window):
        return problem("window", found=found.left, promised=expect.left)
    if bool(extra.triu(1).any()):
        for ahead in (1, 2):
            if torch.equal(seen, Causal(ahead).dense(*seen.shape)):
                return problem("diagonal-promised", ahead=ahead)
        return problem("sees-hidden", cls="prefix" if isinstance(expect, Prefix) else "", **edge)
    verb = "sees" if bool(extra.any()) else "does not see"
    return problem("differs", cls=_class(expect), verb=verb, **edge)


def _class(expect: Mask) -> str:
    """Of a mask that differs from this promise within the past."""
    if "Packed" in repr(expect):
        return "packed"
    if "Window" in repr(expect):
        return "window"
    return "prefix" if isinstance(expect, Prefix) else "padding"


def judge_rows(four: Tensor, problems: list[Problem]) -> None:
    """Queries that see nothing, those of padding aside."""
    empty = ~four.any(-1)  # (B, H, Q)
    if not bool(empty.any()):
        return
    b, h, _ = empty.nonzero()[0].tolist()
    rows = empty[b, h].nonzero().flatten().tolist()
    pads = ~four[b, h].any(0)  # keys that nobody sees
    if four.shape[-2] == four.shape[-1] and bool(pads[rows].all()) and len(rows) < four.shape[-2]:
        return  # rows of padding: nobody reads them
    which = f"Row {rows[0]} sees" if len(rows) == 1 else f"Rows {rows[0]}…{rows[-1]} see"
    problems.append(problem("empty-rows", rows=which, b=b, h=h))
