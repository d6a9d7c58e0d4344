"""What of a comparison leaves the house: figures, numbers, and the Python that makes them."""

from __future__ import annotations

from headwise.interp.analysis.comparing.compare import Comparison
from headwise.interp.drawing import files as export
from headwise.interp.drawing.matrix import Matrix
from headwise.pages._compare.beside import Other
from headwise.pages._compare.choices import state
from headwise.pages._shared.bar import Run
from headwise.pages._shared.code import capturing, show_code
from headwise.pages._shared.files import figure_look, file_buttons

PROPOSED = "from headwise.interp.analysis.patching.corrupting import corruptions"
HELPERS = (
    "from headwise.interp.analysis.comparing.answer import answers_of",
    "from headwise.interp.analysis.comparing.compare import compare",
    "from headwise.interp.analysis.comparing.likeness import head_map",
)


def matrix_files(run: Run, found: Comparison, matrix: Matrix, title: str, name: str) -> None:
    """Buttons for a matrix of two runs."""
    theme = figure_look(run, title)["theme"]

    def figure(kind: str) -> bytes:
        return getattr(export, f"to_{kind}")(matrix, theme=theme, stamp=export.stamp(found.one, found.other))

    file_buttons(name, png=lambda: figure("png"), svg=lambda: figure("svg"), csv=lambda: export.to_csv(matrix))


def code(run: Run, other: Other, found: Comparison) -> None:
    """The Python that makes this view."""
    match = "" if found.match == "number" else f", match={found.match!r}"
    groups = f", groups={state.groups}" if state.groups else ""
    _, layer, head = _shown(found)
    proposed = (PROPOSED,) if "corruptions(" in "".join(other.code) else ()
    show_code(
        [
            *capturing(run, *HELPERS, *proposed, names=other.imports),
            *other.code,
            f"found = compare(cap, other{match})",
            "print(found.table)  # the heads that look elsewhere, the furthest first",
            f"print(found.moved({state.stack!r}, {layer}, {head}))",
            *(["print(answers_of(found).table)"] if state.by != "model" else []),
            f"groups = head_map(found, {state.stack!r}{groups}).groups",
        ]
    )


def _shown(found: Comparison) -> tuple[str, int, int]:
    if (state.layer, state.head) in found.pairs[state.stack]:
        return state.stack, state.layer, state.head
    row = found.table[found.table["stack"] == state.stack].iloc[0]
    return state.stack, int(row["layer"]), int(row["head"])
