"""``check_mask``: read a mask tensor alone – what it says, in which convention, and what is wrong with it.

Two conventions for bool masks are in use: True = may attend (``scaled_dot_product_attention``, Hugging Face) and
True = blocked
(``nn.MultiheadAttention``, ``nn.Transformer``). Float masks are added to the scores: 0 keeps, −inf hides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from headwise.interp.check.report import CheckError, Picture
from headwise.interp.masks import Bidirectional, Causal, Dense, Mask, Packed, Padding, Prefix, Window, recognise

CONVENTIONS = {
    "sdpa": "bool: True = may attend; float: added to the scores",
    "mha": "bool: True = blocked; float: added to the scores",
    "additive": "float: added to the scores",
    "hf": "1 = real token, 0 = padding, (B, K)",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a mask: a class of ``report.CLASSES``, a sentence, and the fix."""

    cls: str
    sentence: str
    fix: str

    def __str__(self) -> str:
        return f"{self.cls}: {self.sentence} Fix: {self.fix}."


@dataclass(frozen=True, eq=False)
class MaskReport:
    """What a mask tensor says. ``mask`` is the expression it was recognised as, ``allowed`` its (B, H, Q, K) bools."""

    mask: Mask
    sentence: str  # "causal, window 8, plus padding of rows 1 and 3"
    convention: str  # one of CONVENTIONS, given or read off
    allowed: Tensor  # bool (B | 1, H | 1, Q, K), True = may attend
    problems: tuple[Problem, ...] = ()
    picture: Picture | None = field(default=None, repr=False)  # sample 0, head 0, against ``expect`` when it was given

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
    is where it will
    be given: "sdpa", "mha", "additive" or "hf"; left out, it is read off the mask. ``expect`` is what it should say.
    ``batch`` and
    ``heads`` tell (B, Q, K) from (H, Q, K). ``dtype`` is the dtype attention runs in. Raises CheckError for what is
    no mask.

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
    if isinstance(expect, str):
        from headwise.interp.check.expectation import parse

        expect = parse(expect)
    mask = mask.detach().cpu()
    problems: list[Problem] = []
    keep = _kept(mask, convention, problems, dtype)  # bool, True = may attend if the polarity is right
    four = _four_axes(keep, mask, convention, batch, heads, problems)
    read, four = _polarity(four, mask, convention, expect, problems)
    if expect is not None:
        _against(four, expect, problems)
    else:
        _shape_of(four, problems)
    _empty(four, problems)
    found, sentence = named(four)
    square = four[0, 0]
    wanted = expect.dense(*square.shape) if expect is not None else square
    return MaskReport(found, sentence, read, four, tuple(_once(problems)), Picture(square, wanted, "mask"))


def _kept(mask: Tensor, convention, problems: list[Problem], dtype) -> Tensor:
    """What may attend, before polarity is judged."""
    if mask.dtype == torch.bool:
        return ~mask if convention == "mha" else mask
    values = torch.unique(mask.double()).tolist()
    if any(v != v for v in values):
        problems.append(
            Problem(
                "empty-rows",
                "It holds NaN, which spreads to every score it is added to.",
                "build it with masked_fill, not 0 · inf",
            )
        )
        mask = mask.nan_to_num(nan=float("-inf"), neginf=float("-inf"))
        values = torch.unique(mask.double()).tolist()
    binary = set(values) <= {0.0, 1.0} and len(values) <= 2
    if binary:
        per_key = (mask.ndim == 2 and mask.shape[0] != mask.shape[1]) or (mask.ndim == 4 and mask.shape[2] == 1)
        if not mask.is_floating_point() and (convention == "hf" or (convention is None and per_key)):
            return mask == 1
        if mask.is_floating_point() and len(values) == 2 and convention != "hf":
            problems.append(
                Problem(
                    "mask-convention",
                    "It is a float mask of zeros and ones: attention adds it to the scores, which hides nothing.",
                    "use mask.bool(), or torch.where(mask == 1, 0.0, -inf)",
                )
            )
        elif convention in ("sdpa", "additive"):
            problems.append(
                Problem(
                    "mask-convention",
                    f"It is {mask.dtype}, which attention takes neither as bool nor as scores.",
                    "use mask.bool()",
                )
            )
        return mask == 1 if len(values) == 2 or values == [1.0] or not mask.is_floating_point() else mask == 0
    if values == [0.0, 255.0] or (not mask.is_floating_point() and min(values) >= 0):
        problems.append(
            Problem(
                "mask-convention",
                f"It is {mask.dtype} with values up to {max(values):g}: neither bool nor scores.",
                "use mask.bool()",
            )
        )
        return mask != 0
    hidden = [v for v in values if v < -1]
    finite = [v for v in hidden if v != float("-inf")]
    if finite and max(finite) > -5_000 and len(values) <= 3:
        problems.append(
            Problem(
                "dtype",
                f"It hides keys with {max(finite):g}, which a large score outweighs.",
                "use −inf, or torch.finfo(dtype).min",
            )
        )
    target = dtype or (mask.dtype if mask.dtype.is_floating_point else torch.float32)
    for half in dict.fromkeys((target, torch.float16)):
        lowest = torch.finfo(half).min
        if finite and min(finite) < lowest and (half == target or min(finite) > torch.finfo(torch.float32).min / 2):
            problems.append(
                Problem(
                    "dtype",
                    f"{min(finite):g} does not fit {str(half).removeprefix('torch.')}, whose lowest is {lowest:g}.",
                    "use torch.finfo(scores.dtype).min, taken where the scores are",
                )
            )
            break
    if finite and float("-inf") in hidden and min(finite) < -1e30:
        problems.append(
            Problem(
                "dtype",
                "It holds both the lowest finite number and −inf: two masks were added, and their sum overflowed.",
                "combine masks as bool, then make them additive once",
            )
        )
    if max(values) > 0 and not finite and float("-inf") not in hidden:
        problems.append(
            Problem("mask-convention", f"No value hides anything: the lowest is {min(values):g}.", "hide with −inf")
        )
    cut = -5_000 if any(v <= -5_000 for v in hidden) else -1
    return mask > cut


def _four_axes(keep: Tensor, mask: Tensor, convention, batch, heads, problems: list[Problem]) -> Tensor:
    """→ (B | 1, H | 1, Q, K)."""
    if keep.ndim == 2:
        per_key = convention == "hf" or (batch is not None and keep.shape[0] == batch != keep.shape[1])
        per_key |= (
            mask.dtype not in (torch.bool,)
            and not mask.is_floating_point()
            and keep.shape[0] != keep.shape[1]
            and convention is None
        )
        if per_key:
            return keep[:, None, None, :].expand(-1, 1, keep.shape[1], -1)
        return keep[None, None]
    if keep.ndim == 3:
        n, rows, columns = keep.shape
        if heads is not None and batch is not None and n == batch * heads:  # nn.MultiheadAttention's (B·H, Q, K)
            return keep.reshape(batch, heads, rows, columns)
        if rows == 1:
            return keep[:, None].expand(-1, 1, columns, -1)
        if (heads is not None and n == heads != batch) or n == 1:
            return keep[None]
        if batch is not None and n == batch and rows != columns and convention in ("sdpa", "mha", None):
            problems.append(
                Problem(
                    "layout",
                    f"Its shape {tuple(mask.shape)} is (B, T, width), not (B, "
                    f"queries, keys): it was built from embeddings.",
                    "build it from the token ids, (B, T)",
                )
            )
        elif convention in ("sdpa", "additive", None):
            problems.append(
                Problem(
                    "layout",
                    f"A mask {tuple(mask.shape)} meets scores (B, H, Q, K) from "
                    f"the right: its first axis falls on the heads.",
                    "unsqueeze the head axis: (B, 1, Q, K)",
                )
            )
        return keep[:, None]
    if keep.shape[-1] == 1 and keep.shape[-2] > 1:
        problems.append(
            Problem(
                "padding",
                f"Its shape {tuple(mask.shape)} masks queries, not keys: every key stays visible to real queries.",
                "use mask[:, None, None, :], shape (B, 1, 1, K)",
            )
        )
        return keep.expand(-1, -1, -1, keep.shape[-2])
    if keep.shape[-2] == 1:
        return keep.expand(-1, -1, keep.shape[-1], -1)
    if heads is not None and keep.shape[1] not in (1, heads):
        problems.append(
            Problem(
                "layout",
                f"Its second axis is {keep.shape[1]}, neither 1 nor {heads} heads.",
                "make it (B | 1, H | 1, Q, K)",
            )
        )
    if batch is not None and keep.shape[0] not in (1, batch):
        problems.append(
            Problem(
                "layout",
                f"Its first axis is {keep.shape[0]}, neither 1 nor a batch of {batch}.",
                "make it (B | 1, H | 1, Q, K)",
            )
        )
    return keep


def _polarity(four: Tensor, mask: Tensor, convention, expect, problems: list[Problem]) -> tuple[str, Tensor]:
    """(convention read, allowed). Judged by what the other polarity would say."""
    if mask.is_floating_point() and not set(torch.unique(mask).tolist()) <= {0.0, 1.0}:
        return "additive" if convention is None else convention, four
    per_key = mask.ndim == 2 and four.shape[0] == mask.shape[0] and four.shape[0] != four.shape[2]
    if per_key:
        return convention or "hf", four
    square = four[0, 0]
    flipped = _plausible(~square) and not _plausible(square)
    if expect is not None:
        wanted = expect.dense(*square.shape)
        flipped = torch.equal(square, ~wanted) and not torch.equal(square, wanted)
    if not flipped:
        return convention or "sdpa", four
    if convention is None and expect is None and mask.dtype == torch.bool:
        return "mha", ~four
    problems.append(
        Problem(
            "mask-convention",
            f"It is inverted: read as {CONVENTIONS[convention or 'sdpa'].split(';')[0]}, it "
            f"says {recognise(square)!r}; negated, {recognise(~square)!r}.",
            "pass ~mask",
        )
    )
    return convention or "sdpa", four


def _plausible(square: Tensor) -> bool:
    """A pattern someone may have meant: named, and every query sees itself."""
    if (
        square.shape[0] == square.shape[1]
        and len(square) > 1
        and not bool(square.tril(-1).any())
        and bool(square.triu(1).any())
    ):
        return False  # nobody sees the past
    own = bool(square.diagonal().all()) if square.shape[0] == square.shape[1] else bool(square.any(1).all())
    return own and (not isinstance(recognise(square), Dense) or bool((~square).any()))


def _shape_of(four: Tensor, problems: list[Problem]) -> None:
    """Without a promise: patterns that are never meant."""
    found = recognise(_pattern(four)[0])
    queries, keys = four.shape[-2:]
    if (
        isinstance(found, Window)
        and found.left == 0
        and found.right >= keys - 2
        and found.right > 0
        and queries == keys
    ):
        problems.append(
            Problem(
                "layout",
                "Every query sees itself and the future only: transposed, or triu for tril.",
                "use tril, or mask.transpose(-1, -2)",
            )
        )
    if isinstance(found, Causal) and found.offset not in (0, keys - queries):
        problems.append(Problem("future-leak", f"Its diagonal is off by {found.offset}.", "use tril(diagonal=0)"))
    square = _pattern(four)[0]
    if queries == keys:
        for offset in (1, 2):
            if keys > offset + 2 and torch.equal(square, Causal(offset).dense(queries, keys)):
                problems.append(
                    Problem(
                        "future-leak",
                        f"Every query sees {offset} token ahead: its diagonal is off by {offset}.",
                        "use tril(diagonal=0)",
                    )
                )


def _against(four: Tensor, expect: Mask, problems: list[Problem]) -> None:
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
        return Problem("layout", "It is transposed: keys see queries.", "use mask.transpose(-1, -2)")
    found, extra = recognise(seen), seen & ~want
    query, key = (extra if bool(extra.any()) else seen ^ want).nonzero()[0].tolist()
    if isinstance(found, Window) and isinstance(expect, Window):
        return Problem(
            "window", f"Its window reaches {found.left} back instead of {expect.left}.", f"keep q − k <= {expect.left}"
        )
    if bool(extra.triu(1).any()):
        for offset in (1, 2):
            if torch.equal(seen, Causal(offset).dense(*seen.shape)):
                return Problem(
                    "future-leak",
                    f"Its diagonal is off by {offset}: every query sees {offset} ahead.",
                    "use tril(diagonal=0)",
                )
        cls = "prefix" if isinstance(expect, Prefix) else "future-leak"
        return Problem(
            cls,
            f"Query {query} sees key {key}, which {expect!r} hides: it says {found!r}.",
            "compare the picture with the promise",
        )
    cls = (
        "packed"
        if "Packed" in repr(expect)
        else "window"
        if "Window" in repr(expect)
        else "prefix"
        if isinstance(expect, Prefix)
        else "padding"
    )
    verb = "sees" if bool(extra.any()) else "does not see"
    return Problem(
        cls,
        f"Query {query} {verb} key {key}: it says {found!r} instead of {expect!r}.",
        "compare the picture with the promise",
    )


def _empty(four: Tensor, problems: list[Problem]) -> None:
    empty = ~four.any(-1)  # (B, H, Q)
    if not bool(empty.any()):
        return
    b, h, _ = empty.nonzero()[0].tolist()
    rows = empty[b, h].nonzero().flatten().tolist()
    pads = ~four[b, h].any(0)  # keys that nobody sees
    if four.shape[-2] == four.shape[-1] and bool(pads[rows].all()) and len(rows) < four.shape[-2]:
        return  # rows of padding: nobody reads them
    what = f"Row {rows[0]} sees" if len(rows) == 1 else f"Rows {rows[0]}…{rows[-1]} see"
    problems.append(
        Problem(
            "empty-rows",
            f"{what} no key at all, in sample {b}, head {h}: softmax gives NaN, or a uniform row.",
            "let every query see itself",
        )
    )


def _pattern(four: Tensor) -> tuple[Tensor, list[tuple[int, int]]]:
    """(the square all samples share, real keys (start, length) of each sample). Keys nobody sees count as padding."""
    real = []
    for sample in four.any(1).any(1):  # (B, K)
        seen = sample.nonzero().flatten()
        real.append((int(seen[0]), int(seen[-1]) - int(seen[0]) + 1) if len(seen) else (0, 0))
    return four.any(0)[0] if four.shape[0] > 1 else four[0, 0], real


def named(four: Tensor) -> tuple[Mask, str]:
    """(expression, words) of a mask (B, H, Q, K).

    >>> pattern = Causal() & Window(7, 0) & Padding((12, 9))
    >>> named(torch.stack([pattern.dense(12, 12, b=b) for b in range(2)])[:, None])
    (Window(7, 0) & Padding((12, 9)), 'causal, window 8, plus padding of row 1')
    """
    if four.shape[1] > 1 and not bool((four == four[:, :1]).all()):
        return Dense(four), "another mask in each head"
    square, real = _pattern(four)
    queries, keys = square.shape
    if four.shape[0] == 1 or bool((four == four[:1]).all()):
        found = recognise(four[0, 0])
        return found, words(found)
    padded = [b for b, (start, n) in enumerate(real) if n < keys]
    lengths, starts = tuple(n for _, n in real), tuple(s for s, _ in real)
    pad = Padding(lengths) if not any(starts) else Padding(lengths, starts)
    pattern = recognise(square)
    whole = pattern & pad
    index = torch.arange(four.shape[0])[:, None, None]
    same = whole(index, torch.zeros(1, dtype=torch.long), torch.arange(queries)[:, None], torch.arange(keys))
    rows = (
        torch.stack([(torch.arange(queries) >= s) & (torch.arange(queries) < s + n) for s, n in real])[:, :, None]
        if queries == keys
        else torch.ones(1, dtype=torch.bool)
    )
    if padded and torch.equal(same & rows, four[:, 0] & rows):
        which = " and ".join(filter(None, [", ".join(map(str, padded[:-1])), str(padded[-1])]))
        text = f"padding of row{'s' if len(padded) > 1 else ''} {which}"
        return (pad, text) if isinstance(pattern, Bidirectional) else (whole, f"{words(pattern)}, plus {text}")
    return Dense(four), "another mask in each sample"


def words(mask: Mask) -> str:
    """A mask in words.

    >>> words(Window(7, 0))
    'causal, window 8'
    """
    match mask:
        case Causal(offset=0):
            return "causal"
        case Causal(offset=offset):
            return f"causal, diagonal moved by {offset}"
        case Window(left=left, right=0):
            return f"causal, window {left + 1}"
        case Window(left=left, right=right):
            return f"window of {left} back and {right} ahead"
        case Bidirectional():
            return "everything sees everything"
        case Prefix(n=n):
            return f"prefix of {n}, then causal"
        case Packed():
            return "packed documents"
        case Padding(lengths=lengths):
            return f"{lengths[0]} real keys"
        case Dense():
            return "a pattern without a name"
    left, right = getattr(mask, "left", None), getattr(mask, "right", None)
    return f"{words(left)}, plus {words(right)}" if isinstance(left, Mask) and isinstance(right, Mask) else repr(mask)


def _once(problems: list[Problem]) -> list[Problem]:
    return list({(p.cls, p.sentence): p for p in problems}.values())
