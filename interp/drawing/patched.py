"""What patching found, ready to be drawn: maps of positions and of heads, two prompts laid beside each other, and each
with its sentence."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from headwise.interp.analysis.patching.alignment import Alignment
from headwise.interp.analysis.patching.approximate import Closeness, closeness
from headwise.interp.drawing.paper.text import visible
from headwise.interp.drawing.streams import Cells, Head, signed_number

PLACED = ("residual", "attention", "mlp")  # kinds of patching at one position
HEADED = ("heads", "patterns")
TITLES = {  # kind → title of its map, and what is put in
    "residual": ("Residual stream", "before each block"),
    "attention": ("Attention", "what it writes"),
    "mlp": ("MLP", "what it writes"),
    "heads": ("Head outputs", "at all positions"),
    "patterns": ("Attention patterns", "at all positions"),
}
WRITES = {
    "residual": ("residual before",),
    "attention": ("attention", "cross"),
    "mlp": ("mlp",),
    "heads": ("head",),
    "patterns": ("pattern",),
}  # fmt: skip -- kind of patching → kinds of a table
EFFECTS = {  # how → what a share says of a part: alone, and of the strongest in a sentence
    "denoising": ("share restored", "restores"),
    "noising": ("share broken", "breaks"),
}
NOTHING = 1e-5  # a share that is rounding
SMALL = 0.05  # of an answer: a difference that is hardly one
HARDLY = "That is hardly a difference, so shares of it mean little: ask about another answer, or corrupt another word."
SLIGHT = 0.02  # a share that no sentence names


@dataclass(frozen=True, eq=False)
class Map:
    """One map: its ``cells`` and the rows of the table they are of, (rows, columns) of indices, −1 where there is
    none."""

    kind: str
    cells: Cells
    rows: np.ndarray

    def cut(self, first: int, end: int) -> Map:
        """The columns from ``first`` to ``end``."""
        cells = self.cells
        part = replace(
            cells,
            columns=cells.columns[first:end],
            values=cells.values[:, first:end],
            shades=cells.shades[:, first:end],
            first=None if cells.first is None else first,
        )
        return Map(self.kind, part, self.rows[:, first:end])

    def at(self, table: pd.DataFrame, row: int, column: int) -> pd.Series | None:
        """The row of the table that a cell is of."""
        if not (0 <= row < self.rows.shape[0] and 0 <= column < self.rows.shape[1]) or self.rows[row, column] < 0:
            return None
        return table.loc[self.rows[row, column]]


def of_kind(table: pd.DataFrame, kind: str, stack: str = "") -> pd.DataFrame:
    """The part of a table of ``patch`` that one map is of; of one stream where a ``stack`` is given."""
    return table[table["kind"].isin(WRITES[kind]) & (table["stack"] == stack if stack else True)]


def streams_of(table: pd.DataFrame) -> list[str]:
    """The streams whose positions were patched, the answer's own first."""
    placed = table["kind"].isin([name for kind in PLACED for name in WRITES[kind]])
    return list(dict.fromkeys(table.loc[placed, "stack"]))


def of_stack(table: pd.DataFrame | None, stack: str) -> pd.DataFrame | None:
    """What was patched in one stream, and all heads."""
    return None if table is None else table[(table["stack"] == stack) | table["kind"].isin(["head", "pattern"])]


def begins(table: pd.DataFrame) -> int:
    """The first position at which anything is moved, or the one before it: in a decoder, what stands before the first
    difference is the same in both runs."""
    if "position" not in table:
        return 0
    moved = table[table["position"].notna() & (table["restored"].abs() > NOTHING)]
    return max(0, int(moved["position"].min()) - 1) if len(moved) else 0


def scale_of(*tables: pd.DataFrame) -> float:
    """The share that the ends of a scale mean: the largest there is, and no less than a tenth."""
    largest = [float(table["restored"].abs().max()) for table in tables if len(table)]
    return max([0.1, *(one for one in largest if np.isfinite(one))])


def mapped(table: pd.DataFrame, kind: str, most: float) -> Map:
    """The map of a kind, of one stream: blocks or layers down, the last on top, positions or heads across. ``most``:
    what the ends of the scale mean."""
    part = of_kind(table, kind)
    across, down = ("position", "block") if kind in PLACED else ("head", "layer")
    several = part["stack"].nunique() > 1 or part["kind"].nunique() > 1
    lines = list(dict.fromkeys(zip(part["stack"], part["kind"], part[down], strict=True)))[::-1]
    width = int(part[across].max()) + 1 if len(part) else 0
    values = np.full((len(lines), width), np.nan)
    rows = np.full((len(lines), width), -1)
    numbers = {line: number for number, line in enumerate(lines)}
    for index, row in part.iterrows():
        at = numbers[row["stack"], row["kind"], row[down]], int(row[across])
        values[at], rows[at] = row["restored"], index
    names = {int(row[across]): str(row["token"]) for _, row in part.iterrows()} if kind in PLACED else {}
    return Map(
        kind,
        Cells(
            tuple(_line(*line, several) for line in lines),
            tuple(names.get(column, str(column)) for column in range(width)),
            values,
            0.5 + 0.5 * np.clip(values / most, -1, 1),
            EFFECTS[table.attrs["how"]][0],
            share(-most),
            share(most),
            tuple(range(len(lines))),
            first=0 if kind in PLACED else None,
            signed=True,
        ),
        rows,
    )


def heads_of(table: pd.DataFrame, shown: Map) -> list[list[Head | None]]:
    """To which head each cell of a map leads: its own; of an attention at one position the head of that layer that
    alone does most; none elsewhere."""
    heads = of_kind(table, "heads")
    found: list[list[Head | None]] = []
    for line in shown.rows:
        found.append([None if index < 0 else _head(table.loc[index], heads) for index in line])
    return found


def _head(row: pd.Series, heads: pd.DataFrame) -> Head | None:
    if row["kind"] in ("head", "pattern"):
        return str(row["stack"]), int(row["layer"]), int(row["head"])
    if row["kind"] not in WRITES["attention"]:
        return None
    stack = "cross" if row["kind"] == "cross" else row["stack"]
    same = heads[(heads["stack"] == stack) & (heads["layer"] == row["block"])]
    return _head(same.loc[same["effect"].abs().idxmax()], heads) if len(same) else None


# -- sentences --------------------------------------------------------------------------------------------------------
def share(value: float) -> str:
    """A share of the difference between two runs."""
    return f"{value:.0%}".replace("-", "−")


def strongest_sentence(table: pd.DataFrame, kind: str, count: int = 2) -> str:
    """Which parts do most, and which works most against it."""
    part = of_kind(table, kind)
    word = EFFECTS[table.attrs["how"]][1]
    if not len(part) or not part["restored"].abs().max() > SLIGHT:
        return f"No single part {word} more than {share(SLIGHT)}."
    ranked = part.sort_values("restored", ascending=False, kind="stable")
    best = [row for _, row in ranked.head(count).iterrows() if row["restored"] > SLIGHT]
    told = [f"{place(row)} {word} {share(row['restored'])}" for row in best]
    against = ranked.iloc[-1]
    if against["restored"] < -SLIGHT:
        told.append(f"{place(against)} works against it, {share(against['restored'])}")
    said = "; ".join(told)
    return f"{said[:1].upper()}{said[1:]}."


def place(row: pd.Series) -> str:
    """A part in words."""
    if row["kind"] in ("head", "pattern"):
        what = "head" if row["kind"] == "head" else "pattern of"
        stack = "" if row["stack"] == "decoder" else f"{row['stack']} " if row["stack"] in ("encoder", "cross") else ""
        return f"{what} {stack}{int(row['layer'])}.{int(row['head'])}"
    what = {"residual before": "the stream before block", "mlp": "MLP"}.get(row["kind"], f"{row['kind']} of block")
    return f"{what} {int(row['block'])} at {visible(str(row['token']))} ({int(row['position'])})"


def near_sentence(exact: pd.DataFrame, estimated: pd.DataFrame, kind: str) -> str:
    """How far estimates may be believed."""
    parts = of_kind(exact, kind), of_kind(estimated, kind)
    near = closeness(*parts)
    off = f"furthest off at {place(parts[0].iloc[near.row])}, by {near.worst:.0%} of the largest effect"
    return f"Estimates: {_correlation(near)}; {off}."


def _correlation(near: Closeness) -> str:
    if np.isnan(near.correlation):
        return "nothing to correlate"
    return f"r = {near.correlation:.2f}, rank {near.rank:.2f}".replace("-", "−")


def differences(exact: pd.DataFrame, estimated: pd.DataFrame) -> pd.DataFrame:
    """The same table with what estimates are off by: estimate less exact."""
    gap = exact.copy()
    for column in ("effect", "restored"):
        gap[column] = estimated[column] - exact[column]
    gap.attrs = dict(exact.attrs)
    return gap


def answer_sentence(table: pd.DataFrame) -> tuple[str, str]:
    """The answer in both runs; and a warning where they hardly differ."""
    attrs = table.attrs
    values = attrs["clean"], attrs["corrupted"]
    clean, corrupted = map(signed_number, values)
    said = f"{attrs['target']}: {clean} in the clean run, {corrupted} in the corrupted one."
    return said, HARDLY if abs(values[0] - values[1]) < SMALL * max(map(abs, values)) else ""


def _line(stack: str, kind: str, number: int, several: bool) -> str:
    if not several:
        return f"{'layer' if kind in ('head', 'pattern') else 'block'} {number}"
    return f"{'cross' if 'cross' in (stack, kind) else stack[:3] if kind in ('head', 'pattern') else 'block'} {number}"


# -- two prompts ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Column:
    """What stands above what: labels (None where there is no partner), their positions, and whether they differ."""

    clean: str | None
    corrupted: str | None
    places: tuple[int | None, int | None]
    differs: bool


def columns(pairs: Alignment) -> tuple[Column, ...]:
    """Two sequences laid beside each other, in order; what has no partner stands alone."""
    found, done = [], [0, 0]

    def alone(until: tuple[int, int]) -> None:
        for position in range(done[0], until[0]):
            found.append(Column(pairs.clean.labels[position], None, (position, None), True))
        for position in range(done[1], until[1]):
            found.append(Column(None, pairs.corrupted.labels[position], (None, position), True))

    for (clean, corrupted), differs in zip(pairs.pairs, pairs.differs, strict=True):
        alone((clean, corrupted))
        labels = pairs.clean.labels[clean], pairs.corrupted.labels[corrupted]
        found.append(Column(*labels, (clean, corrupted), differs))
        done = [clean + 1, corrupted + 1]
    alone((len(pairs.clean), len(pairs.corrupted)))
    return tuple(found)


def path_map(table: pd.DataFrame, most: float) -> tuple[Cells, list[list[Head | None]]]:
    """What every head does to the answer by way of one receiver, layers down and heads across. ``table`` is of
    ``path_patch``."""
    several = table["from_stack"].nunique() > 1
    lines = list(dict.fromkeys(zip(table["from_stack"], table["from_layer"], strict=True)))[::-1]
    width = int(table["from_head"].max()) + 1
    values = np.full((len(lines), width), np.nan)
    heads: list[list[Head | None]] = [[None] * width for _ in lines]
    for row in table.itertuples():
        at = lines.index((row.from_stack, row.from_layer)), int(row.from_head)
        values[at] = row.restored
        heads[at[0]][at[1]] = str(row.from_stack), int(row.from_layer), int(row.from_head)
    return Cells(
        tuple(_line(stack, "head", layer, several) for stack, layer in lines),
        tuple(map(str, range(width))),
        values,
        0.5 + 0.5 * np.clip(values / most, -1, 1),
        EFFECTS[table.attrs["how"]][0],
        share(-most),
        share(most),
        tuple(range(len(lines))),
        signed=True,
    ), heads


def path_sentence(table: pd.DataFrame, receiver: str) -> str:
    """Which senders do most by way of a receiver."""
    word = EFFECTS[table.attrs["how"]][1]
    ranked = table.reindex(table["restored"].abs().sort_values(ascending=False, kind="stable").index)
    best = [row for row in ranked.head(3).itertuples() if abs(row.restored) > SLIGHT]
    if not best:
        return f"No head {word} more than {share(SLIGHT)} of the difference by way of {receiver}."
    names = ", ".join(f"{row.from_layer}.{row.from_head} ({share(row.restored)})" for row in best)
    return f"By way of {receiver}, most is carried by {'heads' if len(best) > 1 else 'head'} {names}."
