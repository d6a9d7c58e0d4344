"""What a check found: ``Report``, ``Finding`` and the fixed list of classes."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass, field

import torch
from torch import Tensor

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


class CheckError(ValueError):
    """The check could not run. The message is one sentence the user can act on."""


@dataclass(frozen=True, eq=False)
class Picture:
    """Who depends on whom: ``observed`` and ``expected`` are bool (queries, keys), True = depends, may depend."""

    observed: Tensor
    expected: Tensor
    of: str = "output × input"  # or "head 2 of blocks.1.attn": the weights of one attention call

    @property
    def forbidden(self) -> Tensor:
        return self.observed & ~self.expected

    def crop(self, size: int = 12) -> Picture:
        """The corner (at most size × size) around the first broken edge."""
        wrong = self.forbidden if bool(self.forbidden.any()) else self.observed ^ self.expected
        edges = wrong.nonzero()
        query, key = edges[0].tolist() if len(edges) else (0, 0)
        low = max(0, min(query, key) - 2)
        if max(query, key) >= low + size:  # the edge is longer than the crop: start from its nearer end
            low = max(0, max(query, key) - size + 1)
        part = slice(low, low + size)
        return Picture(self.observed[part, part], self.expected[part, part], self.of)

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
    picture: Picture | None = None
    smallest: dict = field(default_factory=dict)  # batch, length, query, changed: the smallest input that shows it
    cause: str = ""
    fix: str = ""
    sure: str = "certain"  # "certain" | "likely"
    mode: str = ""  # the mode it happens in when not in all
    also: tuple[str, ...] = ()  # other modules that break the same promise

    def __post_init__(self):
        if self.cls not in CLASSES:
            raise ValueError(f"{self.cls!r} is not a class of findings: {', '.join(CLASSES)}.")

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
        lines.append(f"  effect  {self.effect:.2g} of the output's scale")
        if self.cause:
            lines.append(f"  cause   {self.cause} ({self.sure})")
        if self.fix:
            lines.append(f"  fix     {self.fix}")
        if self.picture is not None:
            lines += [f"  {self.picture.of}", *("    " + row for row in str(self.picture).splitlines())]
        return "\n".join(lines)


setattr(Finding, "class", property(lambda self: self.cls))  # the word JSON uses, for getattr(finding, "class")


@dataclass(frozen=True)
class Probed:
    """One probe of a check: whether it applied, and what it did or why it did not apply."""

    letter: str
    name: str
    applied: bool
    detail: str
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Report:
    """The outcome of ``check``. Green means: every probe in ``probed`` that applied kept the promise."""

    model: str
    expect: str
    findings: tuple[Finding, ...] = ()
    probed: tuple[Probed, ...] = ()
    notes: tuple[str, ...] = ()
    tolerated: float = 0.0  # the largest difference that was taken for rounding, relative to the output's scale
    seconds: float = 0.0
    dependency: Picture | None = None  # the whole output × input picture, also of a clean model
    source: str = ""  # who promised it, where it was not ``expect``

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f.cls for f in self.findings))

    @property
    def _by(self) -> str:
        """Who promised it, as words behind the promise."""
        return f" ({self.source})" if self.source else ""

    def __bool__(self) -> bool:
        return self.ok

    def as_dict(self) -> dict:
        return {
            "model": self.model,
            "expect": self.expect,
            "source": self.source,
            "ok": self.ok,
            "findings": [f.as_dict() for f in self.findings],
            "probed": [vars(p) for p in self.probed],
            "notes": list(self.notes),
            "tolerated": _finite(self.tolerated),
            "seconds": round(self.seconds, 3),
            "dependency": self.dependency.as_dict() if self.dependency else None,
        }

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps(self.as_dict(), indent=indent, ensure_ascii=False)

    def __str__(self) -> str:
        applied = [p for p in self.probed if p.applied]
        mood = "clean" if self.ok else _count(len(self.findings), "finding")
        head = f"{self.model}: {mood}, promise {self.expect}{self._by}"
        lines = [head, *map(str, self.findings), "probed    " + "; ".join(f"{p.letter} {p.detail}" for p in applied)]
        lines += [f"not run   {p.letter} {p.name}: {p.detail}" for p in self.probed if not p.applied]
        lines += [f"note      {note}" for note in self.notes]
        lines.append(f"largest tolerated difference {self.tolerated:.1e}; {self.seconds:.1f} s")
        return "\n".join(lines)

    def to_markdown(self) -> str:
        out = [f"# Mask check of {self.model}", "", f"Promise: `{self.expect}`{self._by}. "]
        out[-1] += "**Clean.**" if self.ok else f"**{_count(len(self.findings), 'finding')}.**"
        for f in self.findings:
            out += ["", f"## {f.cls} – {f.where}", "", f.sentence, ""]
            out += [f"- effect: {f.effect:.2g} of the output's scale", *_bullets(f)]
            if f.picture is not None:
                out += ["", f"{f.picture.of}:", "", "```", str(f.picture), "```"]
        out += ["", "## What was probed", "", "| probe | applied | detail | s |", "|---|---|---|---|"]
        out += [
            f"| {p.letter} {p.name} | {'yes' if p.applied else 'no'} | {p.detail} | {p.seconds:.2f} |"
            for p in self.probed
        ]
        out += ["", *(f"- {note}" for note in self.notes)]
        out += ["", f"Largest tolerated difference: {self.tolerated:.1e}. Took {self.seconds:.1f} s.", ""]
        return "\n".join(out)

    def to_html(self) -> str:
        """One file without scripts or network: opens anywhere."""
        e = html.escape
        body = [f"<h1>Mask check of {e(self.model)}</h1>", f"<p>Promise: <code>{e(self.expect)}</code>{e(self._by)}. "]
        mood, words = ("ok", "Clean") if self.ok else ("bad", _count(len(self.findings), "finding"))
        body[-1] += f"<b class={mood}>{words}</b></p>"
        for f in self.findings:
            body.append(f"<section><h2>{e(f.cls)} – {e(f.where)}</h2><p>{e(f.sentence)}</p><ul>")
            body += [
                f"<li>{e(line[2:])}</li>" for line in (f"- effect: {f.effect:.2g} of the output's scale", *_bullets(f))
            ]
            body.append("</ul>" + (_svg(f.picture) if f.picture is not None else "") + "</section>")
        body.append("<h2>What was probed</h2><table>")
        for p in self.probed:
            body.append(
                f"<tr><td>{p.letter}</td><td>{e(p.name)}</td><td>{'yes' if p.applied else 'no'}</td>"
                f"<td>{e(p.detail)}</td><td>{p.seconds:.2f} s</td></tr>"
            )
        body.append("</table><ul>" + "".join(f"<li>{e(n)}</li>" for n in self.notes) + "</ul>")
        body.append(f"<p>Largest tolerated difference: {self.tolerated:.1e}. Took {self.seconds:.1f} s.</p>")
        if self.dependency is not None and self.ok:
            body.append(f"<h2>Who depends on whom</h2>{_svg(self.dependency)}")
        return f"<!doctype html><meta charset=utf-8><title>Mask check</title><style>{_STYLE}</style>" + "\n".join(body)


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1c2733}"
    "h2{font-size:1.1rem}td{padding:.1rem "
    ".6rem;vertical-align:top;border-top:1px solid #ddd}.ok{color:#1a7f5a}.bad{color:#b3261e}"
    "svg{max-width:24rem;display:block}"
)


def _svg(picture: Picture) -> str:
    """Rows are queries: dark = depends and may, red = depends and may not, grey = promised and not seen."""
    small = picture.crop(48)
    cells = []
    for query, (seen, may) in enumerate(zip(small.observed.tolist(), small.expected.tolist(), strict=True)):
        for key, (s, m) in enumerate(zip(seen, may, strict=True)):
            if s or m:
                colour = "#b3261e" if s and not m else "#1f4e79" if s else "#c9d3dc"
                cells.append(f'<rect x="{key}" y="{query}" width=".92" height=".92" fill="{colour}"/>')
    rows, columns = small.observed.shape
    title = html.escape(f"{picture.of}: rows are queries, columns keys; red is seen and forbidden")
    return f'<svg viewBox="0 0 {columns} {rows}" role="img"><title>{title}</title>{"".join(cells)}</svg>'


def _bullets(f: Finding) -> list[str]:
    lines = [
        f"- {name}: {value}"
        for name, value in (("cause", f"{f.cause} ({f.sure})" if f.cause else ""), ("fix", f.fix))
        if value
    ]
    if f.mode:
        lines.append(f"- happens: {f.mode}")
    if f.smallest:
        lines.append("- smallest input: " + ", ".join(f"{k} {v}" for k, v in f.smallest.items()))
    if f.also:
        lines.append(f"- also: {', '.join(f.also)}")
    return lines


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _finite(x: float):
    return x if x == x and abs(x) != float("inf") else str(x)


def picture_of(observed: Tensor, expected: Tensor | Mask, of: str = "output × input") -> Picture:
    """A Picture from two squares, or from a square and the Mask it should keep."""
    if isinstance(expected, Mask):
        expected = expected.dense(*observed.shape)
    return Picture(observed.cpu(), torch.as_tensor(expected).cpu(), of)
