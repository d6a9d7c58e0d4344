"""Orders in which XLNet predicts a text: some to begin with, one of one's own, and how well a text is told in one.

An order z names the positions as they come; the token at z_t is predicted from those at z_1 … z_t−1 (Yang et al. 2019,
§2.2, equation 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from headwise.interp.errors import InputError
from headwise.interp.subject import Inputs


def _shuffled(length: int, seed: int) -> list[int]:
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed)).tolist()


ORDERS: dict[str, Callable[[int, int], list[int]]] = {  # of a length, and a draw of what is random
    "left to right": lambda length, seed: list(range(length)),
    "right to left": lambda length, seed: list(range(length))[::-1],
    "every other first": lambda length, seed: [*range(0, length, 2), *range(1, length, 2)],
    "shuffled": _shuffled,
}


def own_order(spoken: str, length: int) -> list[int]:
    """An order that begins with the positions a person names; the others follow from left to right.

    Raises InputError for what is no position of a text of this length, and for one named twice.

    >>> own_order("3, 0", 5)
    [3, 0, 1, 2, 4]
    """
    words = spoken.replace(",", " ").split()
    first = [int(word) if word.isdecimal() else -1 for word in words]
    wrong = [word for word, at in zip(words, first, strict=True) if not 0 <= at < length]
    if wrong:
        raise InputError(f"An order names positions from 0 to {length - 1}, such as “3 0 2”; got “{wrong[0]}”.")
    twice = [at for at in first if first.count(at) > 1]
    if twice:
        raise InputError(f"Each position comes once in an order; {twice[0]} was named twice.")
    return first + [at for at in range(length) if at not in first]


def in_order(inputs: Inputs, order: Sequence[int]) -> Inputs:
    """What XLNet read, to be predicted in this order of all its positions."""
    return replace(inputs, kwargs={**inputs.kwargs, "order": torch.tensor(order)})


def surprises(logits: Tensor, ids: Tensor) -> Tensor:
    """−log p of each token, in nats: logits (T, V) of what stands at each position, tokens (T,) that do → (T,)."""
    return -logits.float().log_softmax(-1).gather(-1, ids[:, None])[:, 0]
