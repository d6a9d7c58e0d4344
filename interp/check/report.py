"""What a check found: ``Report``, ``Finding`` and the fixed list of classes. ``writing`` puts it on paper."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from headwise.interp.check.errors import CheckError
from headwise.interp.check.writing import markdown, page
from headwise.interp.masks import ALLOWED, HIDDEN, Mask

CLASSES = {
    "future-leak": "an output depends on inputs that its mask forbids",
    "window": "a sliding window is wider or narrower than promised, or dropped",
    "prefix": "the prefix of a prefix-LM does not see itself, or more than the prefix is seen both ways",
    "packed": "documents packed into one row see each other",
    "padding": "an answer depends on what stands under the padding, or on how much of it there is",
    "position-ids": "positions are counted from the padding or the row instead of from the sample or document",
    "cache": "decoding with a cache differs from the full forward",
    "mode": "the mask holds in one mode, backend or flag and not in another",
    "empty-rows": "a query sees no key at all, or the output has NaN",
    "dtype": "a mask value does not survive half precision, or is finite and can be outscored",
    "outside-attention": "positions mix outside attention: a norm over time, a convolution, a pool, a shared scale",
    "mask-convention": "the mask is read the wrong way round, added as 0/1, or multiplied",
    "layout": "axes are confused: batch with time, heads with batch, queries with keys",
    "labels": "the loss compares an output with the wrong label",
    "routing": "a data-dependent choice (top-k, sort, hash, capacity) looks at the whole sequence",
    "state": "the same input gives another output the second time",
}


@dataclass(frozen=True, eq=False)
class Edges:
    """Who depends on whom: ``observed`` and ``expected`` are bool (queries, keys), True = depends, may depend."""

    observed: Tensor
    expected: Tensor
    of: str = "output × input"  # or "head 2 of blocks.1.attn": the weights of one attention call

    @property
    def forbidden(self) -> Tensor:
        return self.observed & ~self.expected

    def crop(self, size: int = 12) -> Edges:
        """The corner (at most size × size) around the first broken edge."""
        wrong = self.forbidden if bool(self.forbidden.any()) else self.observed ^ self.expected
        edges = wrong.nonzero()
        query, key = edges[0].tolist() if len(edges) else (0, 0)
        low = max(0, min(query, key) - 2)
        if max(query, key) >= low + size:  # the edge is longer than the crop: start from its nearer end
            low = max(0, max(query, key) - size + 1)
        part = slice(low, low + size)
        return Edges(self.observed[part, part], self.expected[part, part], self.of)

    def __str__(self) -> str:
        """Observed beside expected; a ✗ is seen and forbidden, a · promised and not seen."""
        small = self.crop() if max(self.observed.shape) > 12 else self
        width = max(8, small.observed.shape[1]) + 3
        rows = [f"{'observed':<{width}}expected"]
        for seen, may in zip(small.observed.tolist(), small.expected.tolist(), strict=True):
            left = "".join("✗" if s and not m else ALLOWED if s else HIDDEN for s, m in zip(seen, may, strict=True))
            rows.append(left.ljust(width) + "".join(ALLOWED if m else HIDDEN for m in may))
        return "\n".join(rows)

    def as_dict(self) -> dict:
        return {"of": self.of, "observed": self.observed.int().tolist(), "expected": self.expected.int().tolist()}


@dataclass(frozen=True, eq=False)
class Finding:
    """One broken promise: what, where it first appears, how much, the smallest input that shows it, and the likely
    cause.
    """

    cls: str  # one of CLASSES
    sentence: str
    probe: str  # the letter of the probe that found it
    module: str | None = None  # path of the module where it first appears
    layer: int | None = None
    heads: tuple[int, ...] = ()  # heads of that attention that break the promise; () when all or none do
    inside: str = ""  # "attention" | "outside attention" | "" when it was not located
    effect: float = 0.0  # largest change of the output, relative to the output's largest value
    picture: Edges | None = None  # who depends on whom, observed beside expected
    smallest: dict = field(default_factory=dict)  # batch, length, query, changed: the smallest input that shows it
    cause: str = ""
    fix: str = ""
    sure: str = "certain"  # "certain": an experiment shows the cause; "": it was not found
    mode: str = ""  # the mode it happens in when not in all
    also: tuple[str, ...] = ()  # other modules that break the same promise

    def __post_init__(self):
        if self.cls not in CLASSES:
            raise ValueError(f"{self.cls!r} is not a class of findings: {', '.join(CLASSES)}.")

    @property
    def surely(self) -> str:
        """How sure the cause is, as words behind it."""
        return f" ({self.sure})" if self.sure else ""

    @property
    def head(self) -> int | None:
        return self.heads[0] if self.heads else None

    @property
    def where(self) -> str:
        """ "blocks.1.attn, layer 1, head 3", or "blocks.0.norm (outside attention)"."""
        if self.module is None:
            return "not located"
        path = self.module or "the module itself"
        if self.inside == "outside attention":
            return f"{path} (outside attention)"
        parts = [path] + ([f"layer {self.layer}"] if self.layer is not None else [])
        heads = f"head{'s' if len(self.heads) > 1 else ''} {', '.join(map(str, self.heads))}"
        return ", ".join(parts + ([heads] if self.heads else []))

    def as_dict(self) -> dict:
        return {
            "class": self.cls,
            "sentence": self.sentence,
            "probe": self.probe,
            "where": self.where,
            "module": self.module,
            "layer": self.layer,
            "heads": list(self.heads),
            "inside": self.inside,
            "effect": _finite(self.effect),
            "smallest": self.smallest,
            "cause": self.cause,
            "fix": self.fix,
            "sure": self.sure,
            "mode": self.mode,
            "also": list(self.also),
            "picture": self.picture.as_dict() if self.picture else None,
        }

    def __str__(self) -> str:
        lines = [f"{self.cls}: {self.sentence}", f"  where   {self.where}"]
        if self.also:
            lines.append(f"  also    {', '.join(self.also[:6])}{' …' if len(self.also) > 6 else ''}")
        if self.smallest:
            lines.append("  smallest  " + ", ".join(f"{k} {v}" for k, v in self.smallest.items()))
        lines.append(f"  effect  {self.effect:.2g} × the output's largest value")
        if self.cause:
            lines.append(f"  cause   {self.cause}{self.surely}")
        if self.fix:
            lines.append(f"  fix     {self.fix}")
        if self.picture is not None:
            lines += [f"  {self.picture.of}", *("    " + row for row in str(self.picture).splitlines())]
        return "\n".join(lines)


setattr(Finding, "class", property(lambda self: self.cls))  # the word JSON uses, for getattr(finding, "class")


APPLIED, REFUSED, LATE, FAILED = "applied", "the model raised", "out of time", "failed"
MOOT, APART = "nothing to test", "does not apply"  # nothing is promised; what is promised is not to be tested here


@dataclass(frozen=True)
class Probed:
    """One probe of a check: whether it applied, and what it did or why it did not run."""

    id: str  # "content", "padding" …: the name of the probe in code
    letter: str
    name: str
    status: str  # APPLIED | MOOT | APART | REFUSED | LATE | FAILED (in our own code: an error of ours)
    detail: str
    seconds: float = 0.0
    findings: int = 0

    @property
    def applied(self) -> bool:
        return self.status == APPLIED

    @property
    def outcome(self) -> str:
        """ "kept: what was done", "broken: …", "nothing to test: why", "not tested: why" or "failed: how"."""
        if self.status == APPLIED:
            return f"{'broken' if self.findings else 'kept'}: {self.detail}"
        return f"{self.status if self.status in (MOOT, FAILED) else 'not tested'}: {self.detail}"

    def as_dict(self) -> dict:
        return {
            "id": self.id,
            "letter": self.letter,
            "name": self.name,
            "applied": self.applied,
            "status": self.status,
            "detail": self.detail,
            "outcome": self.outcome,
            "seconds": self.seconds,
            "findings": self.findings,
        }


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """The outcome of ``check``. Green means: every probe that applied kept the promise, and none failed on the way."""

    model: str
    expect: str
    findings: tuple[Finding, ...] = ()
    probed: tuple[Probed, ...] = ()
    notes: tuple[str, ...] = ()
    tolerated: float = 0.0  # the largest difference that was taken for rounding, relative to the output's scale
    seconds: float = 0.0
    dependency: Edges | None = None  # the whole output × input square, also of a clean model
    source: str = ""  # who promised it, where it was not ``expect``
    again: Callable[..., str] | None = field(default=None, compare=False)  # finding → script; holds the model
    advice: tuple[Finding, ...] = ()  # what breaks no promise and may still surprise: it fails nothing
    reading: str = ""  # where samples, time and features stand in inputs and output: "input_ids (B, T) → (B, T, C)"

    @property
    def ok(self) -> bool:
        """No finding, no error of ours, and the promise was put to the test as far as it could be."""
        return not self.findings and not self.errors and self.tested

    @property
    def errors(self) -> tuple[Probed, ...]:
        """Probes that failed in our own code: what they are about was not tested."""
        return tuple(p for p in self.probed if p.status == FAILED)

    @property
    def untested(self) -> tuple[Probed, ...]:
        """Probes that had something to test and did not come to an end."""
        return tuple(p for p in self.probed if p.status in (FAILED, REFUSED, LATE))

    @property
    def tested(self) -> bool:
        """Did the probe of the promise itself come to an end, or a finding before it?"""
        return bool(self.findings) or any(p.id == PROMISE and p.status in (APPLIED, MOOT) for p in self.probed)

    @property
    def verdict(self) -> str:
        """ "clean", "2 findings", "not tested" or "1 finding, not all tested"; the table says which promises were."""
        counted = _count(len(self.findings), "finding") if self.findings else ""
        if self.errors or not self.tested:
            return f"{counted}, not all tested" if counted else "not tested"
        return counted or "clean"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f.cls for f in self.findings))

    @property
    def by(self) -> str:
        """Who promised it, as words behind the promise."""
        return f" ({self.source})" if self.source else ""

    def __bool__(self) -> bool:
        return self.ok

    def as_dict(self) -> dict:
        return {
            "model": self.model,
            "expect": self.expect,
            "source": self.source,
            "reading": self.reading,
            "ok": self.ok,
            "verdict": self.verdict,
            "findings": [f.as_dict() for f in self.findings],
            "advice": [f.as_dict() for f in self.advice],
            "errors": [p.as_dict() for p in self.errors],
            "untested": [p.id for p in self.untested],
            "probed": [p.as_dict() for p in self.probed],
            "notes": list(self.notes),
            "tolerated": _finite(self.tolerated),
            "seconds": round(self.seconds, 3),
            "dependency": self.dependency.as_dict() if self.dependency else None,
        }

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps(self.as_dict(), indent=indent, ensure_ascii=False)

    def __repr__(self) -> str:
        applied = sum(p.applied for p in self.probed)
        lines = [f"<Report of {self.model}: {self.verdict}, promise {self.expect}; {applied} probes applied>"]
        lines += [f"  {f.cls}: {f.where}" for f in self.findings[:3]]
        lines += [f"  … and {len(self.findings) - 3} more"] * (len(self.findings) > 3)
        return "\n".join([*lines, *(f"  failed: {p.name}" for p in self.errors)])

    def __str__(self) -> str:
        lines = [f"{self.model}: {self.verdict}, promise {self.expect}{self.by}", *map(str, self.findings)]
        lines += [f"advice: {f.sentence}\n  do      {f.fix}" for f in self.advice]
        lines += [f"read  {self.reading}"] * bool(self.reading) + [f"note  {note}" for note in self.notes]
        widths = [max(len(text) for text in column) for column in zip(*map(self._row, self.probed), strict=True)][:2]
        rows = [("promise", "probe", "outcome"), *map(self._row, self.probed)]
        lines += [f"{name:<{widths[0]}}  {letter:<{max(5, widths[1])}}  {outcome}" for name, letter, outcome in rows]
        lines.append(f"largest tolerated difference {self.tolerated:.1e}; {self.seconds:.1f} s")
        return "\n".join(lines)

    @staticmethod
    def _row(probed: Probed) -> tuple[str, str, str]:
        return probed.name, probed.letter, probed.outcome

    def reproduce(self, number: int = 0, *, model: nn.Module | None = None, factory: str = "") -> str:
        """A script for a notebook or a bug report that shows finding ``number`` without this package: the model, the
        smallest input, the runs, the assertion. It exits 1 with the bug and 0 without it, and was run before it is
        returned. ``model`` takes the model's place in it, such as the repaired one; ``factory``, FILE.py:function,
        makes it where its source cannot be told. Raises CheckError where nothing was found or no script shows it."""
        if not self.findings or self.again is None:
            raise CheckError(f"{self.model} has no finding to reproduce.")
        if not 0 <= number < len(self.findings):
            raise CheckError(f"there is no finding {number}: {self.model} has {_count(len(self.findings), 'finding')}.")
        return self.again(self.findings[number], model=model, factory=factory)

    def to_markdown(self) -> str:
        return markdown(self)

    def to_html(self) -> str:
        """One file without scripts or network: opens anywhere."""
        return page(self)


PROMISE = "content"  # the probe that puts the promise itself to the test


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _finite(x: float):
    return x if x == x and abs(x) != float("inf") else str(x)


def edges(observed: Tensor, expected: Tensor | Mask, of: str = "output × input") -> Edges:
    """Edges from two squares, or from a square and the Mask it should keep."""
    if isinstance(expected, Mask):
        expected = expected.dense(*observed.shape)
    return Edges(observed.cpu(), torch.as_tensor(expected).cpu(), of)
