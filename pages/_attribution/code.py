"""The Python that makes this view."""

from __future__ import annotations

from headwise.interp.analysis.targets import Target
from headwise.pages._attribution.choices import state
from headwise.pages._shared.bar import Run
from headwise.pages._shared.code import TARGET, asking, capturing, show_code

ROOM = "headwise.interp.analysis.attribution"


def code(run: Run, aim: Target, names: tuple[str, str], kind: str) -> None:
    """Draw it."""
    show_code(lines(run, aim, names, kind))


def lines(run: Run, aim: Target, names: tuple[str, str], kind: str) -> list[str]:
    """The code, line by line."""
    checks = [f"print(sanity(cap, {name!r}, aim, baseline={kind!r}).sentence)" for name in dict.fromkeys(names)]
    return [
        *capturing(
            run,
            f"from {ROOM} import explain",
            f"from {ROOM}.faithfulness import agreement, faithfulness",
            *([f"from {ROOM}.sanity import sanity"] if state.checked else []),
            TARGET,
        ),
        asking(aim),
        f"one, other = (explain(cap, name, aim, baseline={kind!r}) for name in {tuple(names)!r})",
        "print(one.scores, agreement(one, other))",
        "for found in (one, other):",
        f"    tested = faithfulness(found, baseline={kind!r})",
        "    print(tested.sentence)",
        "    print(tested.figures())",
        *(checks if state.checked else []),
    ]
