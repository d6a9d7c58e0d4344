"""``check_mask``: read a mask tensor alone – what it says, in which convention, and what is wrong with it.

Two conventions for bool masks are in use: True = may attend (``scaled_dot_product_attention``, Hugging Face) and
True = blocked (``nn.MultiheadAttention``, ``nn.Transformer``). Float masks are added to the scores: 0 keeps, −inf
hides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from headwise.interp.check.errors import CheckError
from headwise.interp.check.expectation import parse
from headwise.interp.check.lint.judging import judge_against, judge_alone, judge_rows
from headwise.interp.check.lint.naming import named
from headwise.interp.check.lint.problems import Problem
from headwise.interp.check.lint.reading import CONVENTIONS, Use, four_axes, kept, polarity
from headwise.interp.check.report import Edges
from headwise.interp.masks import Mask


@dataclass(frozen=True, eq=False)
class MaskReport:
    """What a mask tensor says. ``mask`` is the expression it was recognised as, ``allowed`` its (B, H, Q, K) bools."""

    mask: Mask
    sentence: str  # "causal, window 8, plus padding of rows 1 and 3"
    convention: str  # one of CONVENTIONS, given or read off
    allowed: Tensor  # bool (B | 1, H | 1, Q, K), True = may attend
    problems: tuple[Problem, ...] = ()
    picture: Edges | None = field(default=None, repr=False)  # sample 0, head 0, against ``expect`` when it was given

    @property
    def ok(self) -> bool:
        return not self.problems

    def __bool__(self) -> bool:
        return self.ok

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(p.cls for p in self.problems))

    def as_dict(self) -> dict:
        return {
            "mask": repr(self.mask),
            "sentence": self.sentence,
            "convention": self.convention,
            "shape": list(self.allowed.shape),
            "ok": self.ok,
            "problems": [{"class": p.cls, "sentence": p.sentence, "fix": p.fix} for p in self.problems],
        }

    def __str__(self) -> str:
        head = f"{self.mask!r} – {self.sentence} ({CONVENTIONS[self.convention]})"
        return "\n".join([head, *map(str, self.problems)] + ([str(self.picture)] if self.picture is not None else []))


def check_mask(
    mask: Tensor,
    *,
    convention: str | None = None,
    expect: Mask | str | None = None,
    batch: int | None = None,
    heads: int | None = None,
    dtype: torch.dtype | None = None,
) -> MaskReport:
    """Lint a mask: polarity, 0/1 floats, rank and broadcast axes, transposed, off by a diagonal, window width, empty
    rows, overflow.

    ``mask`` is (Q, K), (B, K), (B, Q, K), (B, 1, 1, K), (B | 1, H | 1, Q, K) …; bool, int or float. ``convention``
    is where it will be given: "sdpa", "mha", "additive" or "hf"; left out, it is read off the mask. ``expect`` is
    what it should say. ``batch`` and ``heads`` tell (B, Q, K) from (H, Q, K). ``dtype`` is the dtype attention runs
    in. Raises CheckError for what is no mask.

    >>> check_mask(torch.ones(6, 6).tril()).classes
    ('mask-convention',)
    >>> check_mask(torch.ones(6, 6).tril().bool(), convention="mha").problems[0].cls
    'mask-convention'
    >>> check_mask(torch.ones(6, 6).tril().bool()).sentence
    'causal'
    """
    mask = torch.as_tensor(mask)
    if convention is not None and convention not in CONVENTIONS:
        raise CheckError(f"convention expects one of {', '.join(CONVENTIONS)}, got {convention!r}.")
    if not 2 <= mask.ndim <= 4 or not mask.numel():
        raise CheckError(
            f"check_mask expects 2 to 4 axes, such as (Q, K) or (B, 1, Q, K), got shape {tuple(mask.shape)}."
        )
    if mask.dtype.is_complex:
        raise CheckError(f"check_mask expects bool, int or float, got {mask.dtype}.")
    promise = parse(expect) if isinstance(expect, str) else expect
    use = Use(convention, expect=promise, batch=batch, heads=heads, dtype=dtype)
    mask = mask.detach().cpu()
    problems: list[Problem] = []
    keep = kept(mask, use, problems)
    read, four = polarity(four_axes(keep, mask, use, problems), mask, use, problems)
    if promise is not None:
        judge_against(four, promise, problems)
    else:
        judge_alone(four, problems)
    judge_rows(four, problems)
    found, sentence = named(four)
    square = four[0, 0]
    wanted = promise.dense(*square.shape) if promise is not None else square
    return MaskReport(
        found,
        sentence,
        read,
        allowed=four,
        problems=tuple({(p.cls, p.sentence): p for p in problems}.values()),
        picture=Edges(square, wanted, of="mask"),
    )
