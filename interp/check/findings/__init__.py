"""The catalogue of findings: what is said of each broken promise, its likely cause and its fix.

One table holds the prose; probes and causes hand in what they measured, by name:

    found("empty-rows", probe="N", module="blocks.1.attn", layer=1, effect=1.0, rows="query 0")
    verdict("off-by-a-diagonal", ahead=1, s="", wider=2)

A text is a template: ``{name}`` is filled in, and ``⟨…⟩`` is left out where what it names is unknown. What a verdict
says is the middle of a sentence, because it is said of a place: "Layer 1 (blocks.1.attn) *sees the future*: …".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from string import Formatter

from headwise.interp.check.findings.kinds import UNFOUND, Kind
from headwise.interp.check.findings.sentences import FINDINGS, WHY
from headwise.interp.check.findings.verdicts import CONSEQUENCES, OF, VERDICTS
from headwise.interp.check.report import Finding


@dataclass(frozen=True)
class Verdict:
    """What happens at a place where content flows that the mask forbids, and why."""

    cls: str
    says: str  # the middle of a sentence: "sees the future"
    cause: str
    fix: str
    sure: str = ""


FACTS = {f.name for f in fields(Finding)} - {"cls", "sentence", "cause", "fix", "sure"}


def found(kind: str, *, cls: str = "", **known) -> Finding:
    """A Finding of this kind. ``known`` are fields of Finding and whatever else the texts name; ``cls`` where the
    evidence says another class than the catalogue.
    """
    entry = FINDINGS[kind]
    cause, fix = _said(entry, **known)
    return Finding(
        cls=cls or entry.cls,
        sentence=filled(entry.says, **known),
        cause=cause,
        fix=fix,
        sure=entry.sure,
        **{name: value for name, value in known.items() if name in FACTS},
    )


def _said(entry: Kind, **known) -> tuple[str, str]:
    """(cause, fix): what was not shown is no cause, but where to look first."""
    cause, fix = filled(entry.cause, **known), filled(entry.fix, **known)
    if entry.sure or not cause or UNFOUND in cause:
        return cause, fix
    return UNFOUND, f"look at this first: {cause}" + (f" – {fix}" if fix else "")


def reworded(finding: Finding, kind: str, *, mode: str, **known) -> Finding:
    """The same finding said as another kind, which keeps its place, effect and pictures."""
    entry = FINDINGS[kind]
    said = finding.sentence.rstrip(".")
    said = said if finding.module and said.startswith(finding.module) else lowered(said)  # a path keeps its case
    return replace(
        finding,
        cls=entry.cls,
        mode=mode,
        sentence=filled(entry.says, said=said, **known),
        cause=filled(entry.cause, **known),
        fix=entry.fix or finding.fix,
        sure=entry.sure or finding.sure,
    )


def verdict(kind: str, **known) -> Verdict:
    entry = VERDICTS[kind]
    return Verdict(
        cls=entry.cls,
        says=filled(entry.says, **known),
        cause=filled(entry.cause, **known),
        fix=filled(entry.fix, **known),
        sure=entry.sure,
    )


def why(kind: str, **known) -> str:
    return filled(WHY[kind], **known)


def consequence(kind: str, **known) -> str:
    return filled(CONSEQUENCES[kind], **known)


def of(kind: str, **known) -> str:
    """What a drawing of edges shows."""
    return filled(OF[kind], **known)


def filled(template: str, **known) -> str:
    """The text with what is known in it.

    >>> filled("It differs⟨, first at {module}⟩.", module="blocks.0")
    'It differs, first at blocks.0.'
    >>> filled("It differs⟨, first at {module}⟩.", module=None)
    'It differs.'
    """

    def optional(match: re.Match) -> str:
        names = [name for _, name, _, _ in Formatter().parse(match[1]) if name]
        return match[1] if all(known[name] not in (None, "") for name in names) else ""

    return re.sub("⟨(.*?)⟩", optional, template).format(**known)


def lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
