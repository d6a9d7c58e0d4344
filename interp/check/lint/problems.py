"""What is said of a mask that is wrong: one table, as ``findings`` is for models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a mask: a class of ``report.CLASSES``, a sentence, and the fix."""

    cls: str
    sentence: str
    fix: str

    def __str__(self) -> str:
        return f"{self.cls}: {self.sentence} Fix: {self.fix}."


LOOK = "compare the picture with the promise"
AXES = "make it (B | 1, H | 1, Q, K)"
TRIL = "use tril(diagonal=0)"

PROBLEMS = {  # (class, sentence, fix), templates all
    # -- values
    "nan": (
        "empty-rows",
        "It holds NaN, which spreads to every score it is added to.",
        "build it with masked_fill, not 0 · inf",
    ),
    "zeros-and-ones": (
        "mask-convention",
        "It is a float mask of zeros and ones: attention adds it to the scores, which hides nothing.",
        "use mask.bool(), or torch.where(mask == 1, 0.0, -inf)",
    ),
    "integers": (
        "mask-convention",
        "It is {dtype}, which attention takes neither as bool nor as scores.",
        "use mask.bool()",
    ),
    "counts": (
        "mask-convention",
        "It is {dtype} with values up to {largest:g}: neither bool nor scores.",
        "use mask.bool()",
    ),
    "weak": (
        "dtype",
        "It hides keys with {value:g}, which a large score outweighs.",
        "use −inf, or torch.finfo(dtype).min",
    ),
    "does-not-fit": (
        "dtype",
        "{value:g} does not fit {dtype}, whose lowest is {lowest:g}.",
        "use torch.finfo(scores.dtype).min, taken where the scores are",
    ),
    "overflowed": (
        "dtype",
        "It holds both the lowest finite number and −inf: two masks were added, and their sum overflowed.",
        "combine masks as bool, then make them additive once",
    ),
    "hides-nothing": ("mask-convention", "No value hides anything: the lowest is {lowest:g}.", "hide with −inf"),
    # -- axes
    "from-embeddings": (
        "layout",
        "Its shape {shape} is (B, T, width), not (B, queries, keys): it was built from embeddings.",
        "build it from the token ids, (B, T)",
    ),
    "falls-on-heads": (
        "layout",
        "A mask {shape} meets scores (B, H, Q, K) from the right: its first axis falls on the heads.",
        "unsqueeze the head axis: (B, 1, Q, K)",
    ),
    "masks-queries": (
        "padding",
        "Its shape {shape} masks queries, not keys: every key stays visible to real queries.",
        "use mask[:, None, None, :], shape (B, 1, 1, K)",
    ),
    "heads": ("layout", "Its second axis is {found}, neither 1 nor {wanted} heads.", AXES),
    "batch": ("layout", "Its first axis is {found}, neither 1 nor a batch of {wanted}.", AXES),
    # -- pattern
    "inverted": (
        "mask-convention",
        "It is inverted: read as {convention}, it says {found!r}; negated, {negated!r}.",
        "pass ~mask",
    ),
    "future-only": (
        "layout",
        "Every query sees itself and the future only: transposed, or triu for tril.",
        "use tril, or mask.transpose(-1, -2)",
    ),
    "diagonal": ("future-leak", "Its diagonal is off by {ahead}.", TRIL),
    "diagonal-ahead": (
        "future-leak",
        "Every query sees {ahead} token ahead: its diagonal is off by {ahead}.",
        TRIL,
    ),
    "diagonal-promised": (
        "future-leak",
        "Its diagonal is off by {ahead}: every query sees {ahead} ahead.",
        TRIL,
    ),
    "transposed": ("layout", "It is transposed: keys see queries.", "use mask.transpose(-1, -2)"),
    "window": ("window", "Its window reaches {found} back instead of {promised}.", "keep q − k <= {promised}"),
    "sees-hidden": ("future-leak", "Query {query} sees key {key}, which {promise!r} hides: it says {found!r}.", LOOK),
    "differs": ("padding", "Query {query} {verb} key {key}: it says {found!r} instead of {promise!r}.", LOOK),
    "empty-rows": (
        "empty-rows",
        "{rows} no key at all, in sample {b}, head {h}: softmax gives NaN, or a uniform row.",
        "let every query see itself",
    ),
}


def problem(kind: str, *, cls: str = "", **known) -> Problem:
    """A Problem of this kind; ``cls`` where the mask says another class than the table."""
    usual, sentence, fix = PROBLEMS[kind]
    return Problem(cls=cls or usual, sentence=sentence.format(**known), fix=fix.format(**known))
