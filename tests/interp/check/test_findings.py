"""The catalogue of findings is whole, every line of it is used, and no finding is built by position."""

import ast
import re
from pathlib import Path
from string import Formatter

import pytest

from headwise.interp import check as room
from headwise.interp.check.findings import CONSEQUENCES, FINDINGS, OF, VERDICTS, WHY, found, reworded, verdict, why
from headwise.interp.check.lint.problems import PROBLEMS, problem
from headwise.interp.check.report import CLASSES

FILES = sorted(Path(room.__file__).parent.rglob("*.py"))
CODE = {file: ast.parse(file.read_text("utf-8")) for file in FILES}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_findings_are_built_by_name(file):
    for node, name in calls(CODE[file]):
        if name in ("Finding", "Verdict", "Problem"):
            assert not node.args, f"{file.name}, line {node.lineno}: {name} by position"


def texts(tree) -> set[str]:
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def test_every_line_of_the_catalogue_is_used():
    used = set().union(*(texts(t) for f, t in CODE.items() if "findings" not in f.parts and f.stem != "problems"))
    spoken = (*FINDINGS, *VERDICTS, *WHY, *CONSEQUENCES, *OF, *PROBLEMS)
    spoken = {k for k in spoken if not k.startswith(("mixes:", "shift-"))}  # built from an operation's kind, a number
    assert spoken <= used, spoken - used


def test_every_name_is_in_the_catalogue():
    tables = {"found": FINDINGS, "reworded": FINDINGS, "verdict": VERDICTS, "why": WHY, "of": OF, "problem": PROBLEMS}
    for file, tree in CODE.items():
        for node, name in calls(tree):
            kind = node.args[name == "reworded"] if name in tables and len(node.args) > (name == "reworded") else None
            if isinstance(kind, ast.Constant) and "findings" not in file.parts:
                assert kind.value in tables[name], f"{file.name}, line {node.lineno}: {kind.value}"


def test_classes_and_words_are_those_of_reports():
    for kind, entry in {**FINDINGS, **VERDICTS}.items():
        assert entry.cls in CLASSES, kind
        assert entry.sure in ("certain", ""), kind
    assert {cls for cls, _, _ in PROBLEMS.values()} <= set(CLASSES)
    for kind, entry in FINDINGS.items():
        assert entry.says.endswith("."), kind
    for kind, entry in VERDICTS.items():
        assert entry.says[0].islower() and not entry.says.endswith("."), kind  # the middle of a sentence


def fields(*templates) -> set[str]:
    plain = (re.sub("[⟨⟩]", "", t) for t in templates)
    return {name for t in plain for _, name, _, _ in Formatter().parse(t) if name}


@pytest.mark.parametrize("kind", VERDICTS)
def test_a_verdict_fills_its_texts(kind):
    entry = VERDICTS[kind]
    names = fields(entry.says, entry.cause, entry.fix)
    made = verdict(kind, **dict.fromkeys(names, 3))
    assert made.cls == entry.cls and "{" not in made.says + made.cause


def test_a_finding_keeps_its_facts_and_fills_its_texts():
    finding = found(
        "modes-differ",
        probe="T",
        module="blocks.0",
        effect=0.5,
        mode="train, grad",
        base="eval, no_grad",
        why=why("ones"),
    )
    assert finding.sentence == "The output in train, grad differs from that in eval, no_grad, first at blocks.0."
    assert (finding.cls, finding.probe, finding.module, finding.effect) == ("mode", "T", "blocks.0", 0.5)
    assert finding.mode == "train, grad" and finding.cause == "we did not find why" and finding.sure == ""
    assert finding.fix.startswith("look at this first: no mask and a mask of ones are not the same")
    unplaced = found("modes-differ", probe="T", module=None, mode="a", base="b", why="")
    assert unplaced.sentence == "The output in a differs from that in b."
    again = reworded(finding, "padding-dropped-in-a-mode", mode="x; y", here="x", other="holds in z")
    assert again.sentence == (
        "In x, the output in train, grad differs from that in eval, no_grad, first at blocks.0; the mask holds in z."
    )
    assert (again.fix, again.sure, again.mode, again.module) == (finding.fix, "", "x; y", "blocks.0")


def test_a_problem_says_its_numbers():
    assert str(problem("window", found=4, promised=3)) == (
        "window: Its window reaches 4 back instead of 3. Fix: keep q − k <= 3."
    )
