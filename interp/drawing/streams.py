"""What stands in the residual stream, ready to be drawn: a table of cells, layers down and positions across; the parts
of an answer as a list that adds up, and as a map of heads; and each with its sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from headwise.interp.analysis.lens import Lens
from headwise.interp.analysis.targets import Target, answer_position, row_at, tokens_of
from headwise.interp.drawing.paper.text import brief, visible
from headwise.interp.errors import InputError
from headwise.interp.run.anatomy import Anatomy
from headwise.interp.run.capture import Capture
from headwise.interp.run.generate import Sampling, distribution, top

Head = tuple[str, int, int]  # stack, layer, head

LENS_SHADES = {  # what colours a cell of the lens → what it is called, of a token
    "chance": "chance of {}",
    "rank": "rank of {}",
    "kl": "nats to the end",
}
NORM_SHADES = {  # a column of ``norms`` → what it is called
    "norm": "length",
    "change": "length of what was added",
    "cosine": "cosine to the state before",
}
NOUNS = {  # what one of a kind is called, and several
    "embedding": ("embedding", "embeddings"),
    "head": ("head", "heads"),
    "mlp": ("MLP", "MLPs"),
    "constant": ("constant", "constants"),
    "mixer": ("mixer", "mixers"),
}
ORDER = ("embedding", "head", "attention", "cross", "mlp", "mixer", "mixed", "other", "constant")
FEW = 12  # rows of a table that are shown of many
WIDE = 96  # positions that stand in one table
STRONGEST = {
    "head": 7,
    "mlp": 1,
    "attention": 3,
    "cross": 3,
    "mixer": 3,
    "embedding": 0,
    "constant": 0,
}  # told one by one


@dataclass(frozen=True)
class Window:
    """The rows and the positions of a table that are shown. Rows are told from the end, the last state first. Before
    ``start`` there is nothing to show."""

    rows: tuple[int, ...]
    first: int
    end: int
    count: int
    states: int
    start: int = 0

    @property
    def before(self) -> int | None:
        """A position on the page before."""
        return self.first - 1 if self.first > self.start else None

    @property
    def after(self) -> int | None:
        return self.end if self.end < self.count else None


def window(states: int, positions: int, chosen: tuple[int, int], every: bool = False, start: int = 0) -> Window:
    """Which of many ``states`` and ``positions``, from ``start`` on, are shown around the ``chosen`` (row, position):
    some rows, spread evenly, or ``every`` one; positions in pages, of which the last is full."""
    rows = set(range(states))
    if not every and states > FEW + 2:
        rows = set(np.linspace(0, states - 1, FEW).round().astype(int).tolist()) | {chosen[0]}
    end = positions - (positions - 1 - max(start, chosen[1])) // WIDE * WIDE
    return Window(tuple(sorted(rows, reverse=True)), max(start, end - WIDE), end, positions, states, start)


@dataclass(frozen=True, eq=False)
class Cells:
    """A table of small cells.

    ``values`` (rows, columns), NaN where there is none, and ``shades`` of them, 0 … 1 on the colour scale (``signed``:
    0.5 is zero) · ``texts`` what stands in the cells, and whether that are ``tokens`` · ``quantity`` what a value is,
    ``low`` and ``high`` what the ends of the scale mean · ``places`` the numbers of the rows, ``first`` the position of
    the first column, None where columns are no positions.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    shades: np.ndarray
    quantity: str
    low: str
    high: str
    places: tuple[int, ...]
    first: int | None = None
    texts: tuple[tuple[str, ...], ...] | None = None
    tokens: bool = False
    signed: bool = False


def lens_cells(lens: Lens, token: int, name: str, shade: str, shown: Window) -> Cells:
    """What a lens reads: in each cell the most probable token, coloured by ``shade``, one of LENS_SHADES."""
    values = {"chance": lens.probability, "rank": lens.rank}[shade](token) if shade != "kl" else lens.kl
    whole = _array(values)
    if shade == "chance":
        shades, low, high = whole, "0", "1"
    elif shade == "rank":
        most = max(2.0, float(whole.max()))
        shades, low, high = 1 - np.log(whole) / math.log(most), f"{most:,.0f}", "1"
    else:
        most = max(1e-9, float(np.nanmax(whole)))
        shades, low, high = whole / most, "0", brief(most)
    part = np.ix_(shown.rows, range(shown.first, shown.end))
    texts = tuple(tuple(lens.best_labels[row][shown.first : shown.end]) for row in shown.rows)
    return Cells(
        tuple(state_name(lens.labels[row]) for row in shown.rows),
        tuple(lens.axis.labels[shown.first : shown.end]),
        whole[part],
        shades[part],
        LENS_SHADES[shade].format(visible(name)),
        low,
        high,
        shown.rows,
        shown.first,
        texts,
        tokens=True,
    )


def norm_cells(table: pd.DataFrame, measure: str, shown: Window) -> Cells:
    """How long each state is, how much was added to it, and how far that turned it: one of NORM_SHADES. ``table`` is of
    ``norms``."""
    labels = table["token"].iloc[: shown.count].tolist()
    whole, names = norm_grid(table, measure)
    known = whole[np.isfinite(whole)]
    least, most = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if measure == "cosine":  # what turns is told, what goes on straight is pale
        shades, low, high = (1 - whole) / max(1e-9, 1 - least), "1", f"{least:.2f}"
    else:  # lengths differ by orders of magnitude
        positive = max(least, most * 1e-4, 1e-12)
        shades = np.log(np.maximum(whole, positive) / positive) / max(1e-9, math.log(max(most, positive) / positive))
        low, high = short(positive), short(most)
    part = np.ix_(shown.rows, range(shown.first, shown.end))
    write = (lambda value: f"{value:.2f}") if measure == "cosine" else short
    texts = [["" if np.isnan(value) else write(float(value)).replace("-", "−") for value in row] for row in whole[part]]
    return Cells(
        tuple(names[row] for row in shown.rows),
        tuple(labels[shown.first : shown.end]),
        whole[part],
        shades[part],
        NORM_SHADES[measure],
        low.replace("-", "−"),
        high.replace("-", "−"),
        shown.rows,
        shown.first,
        tuple(map(tuple, texts)),
    )


def norm_grid(table: pd.DataFrame, measure: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column of ``norms`` → (states, positions), and what the states are called."""
    rows = tuple(dict.fromkeys(table["after"]))
    wide = table.pivot(index="after", columns="position", values=measure).reindex(rows)
    return wide.to_numpy(float), tuple(map(state_name, rows))


def state_name(label: str) -> str:
    """ "start", or "after 3" of the state that follows block 3."""
    return f"after {label}" if label.isdecimal() else label


# -- who says it ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Part:
    """One line of the list: what ``value`` a part, or several (``count``), put onto the answer. ``head`` is (stack,
    layer, head) where it is one head."""

    name: str
    value: float
    count: int = 1
    head: Head | None = None


def parts(table: pd.DataFrame) -> tuple[Part, ...]:
    """The rows of ``logit_attribution`` as a list that a person can read and that adds up to the same: the strongest of
    each kind one by one, the others of the kind together."""
    found: list[Part] = []
    several = _several(table)
    for kind in sorted(dict.fromkeys(table["part"]), key=_place):
        rows = table[table["part"] == kind]
        rows = rows.reindex(rows["value"].abs().sort_values(ascending=False, kind="stable").index)
        most = STRONGEST.get(kind, 2)
        most = most if len(rows) > most + 1 else len(rows)  # "1 other" could as well be told
        strong = rows.iloc[:most].sort_values("value", ascending=False, kind="stable")
        found += [_part(row, several) for row in strong.itertuples()]
        if len(rows) > most:
            rest = rows["value"].iloc[most:]
            others = "other " if most else ""
            found.append(Part(f"{len(rest)} {others}{_noun(kind, plural=True)}", float(rest.sum()), len(rest)))
    return tuple(found)


def _place(kind: str) -> int:
    """Where a kind stands in the list."""
    return ORDER.index(kind) if kind in ORDER else len(ORDER) - 2


def _part(row: Any, several: bool) -> Part:
    if row.part != "head":
        return Part(str(row.name), float(row.value))
    _, layer, number = head = _head(row)
    return Part(f"{f'{row.stack} ' if several else ''}head {layer}.{number}", float(row.value), head=head)


def _several(table: pd.DataFrame) -> bool:
    """Are there heads of several stacks?"""
    return table.loc[table["part"] == "head", "stack"].nunique() > 1


def head_map(table: pd.DataFrame) -> tuple[Cells, list[list[Head | None]]]:
    """What every head and every other write put onto the answer: layers down, the last on top, heads across and MLPs
    beside them; and which head a cell is."""
    whole = table[table["block"].notna() & (table["part"] != "constant")]
    several = _several(whole)
    blocks = sorted({int(block) for block in whole["block"]}, reverse=True)
    keys = {_column(row): None for row in whole.itertuples()}
    columns = sorted(keys, key=lambda key: (key[0] != "head", key[1] if several else "", key[2]))
    values = np.full((len(blocks), len(columns)), np.nan)
    heads: list[list[Head | None]] = [[None] * len(columns) for _ in blocks]
    for row in whole.itertuples():
        r, c = blocks.index(int(row.block)), columns.index(_column(row))
        values[r, c] = row.value + np.nan_to_num(values[r, c])
        heads[r][c] = _head(row) if row.part == "head" else None
    most = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    names = [f"{key[1][:1] if several else ''}{key[2]}" if key[0] == "head" else _noun(key[0]) for key in columns]
    return Cells(
        tuple(f"layer {block}" for block in blocks),
        tuple(names),
        values,
        0.5 + 0.5 * values / most,
        "onto the answer",
        signed_number(-most),
        signed_number(most),
        tuple(range(len(blocks))),
        signed=True,
    ), heads


def _column(row: Any) -> tuple[str, str, int]:
    """Which column of the map a part stands in."""
    return ("head", str(row.stack), int(row.head)) if row.part == "head" else (str(row.part), "", -1)


def _head(row: Any) -> Head:
    return str(row.stack), int(row.layer), int(row.head)


def _noun(kind: str, plural: bool = False) -> str:
    one, many = NOUNS.get(kind, (kind, f"{kind} parts"))
    return many if plural else one


# -- sentences --------------------------------------------------------------------------------------------------------
def when_sentence(lens: Lens, token: int, name: str, position: int) -> str:
    """When a token becomes what the model would say at a position."""
    ranks = [int(rank) for rank in _array(lens.rank(token))[:, position]]
    first = next((row for row in range(len(ranks)) if all(rank == 1 for rank in ranks[row:])), None)
    said = visible(name)
    if first is not None:
        before = sum(rank == 1 for rank in ranks[:first])
        also = f", and in {before} states before." if before else "."
        return f"{said} leads from “{state_name(lens.labels[first])}” on{also}"
    best = min(ranks)
    where = state_name(lens.labels[ranks.index(best)])
    return f"{said} ends on rank {ranks[-1]:,}" + (f"; its best was {best:,}, {where}." if best < ranks[-1] else ".")


def distance_sentence(lens: Lens, row: int, position: int) -> str:
    """How far a place is from the end, and what a tuned lens gained there on other texts."""
    said = f"{float(lens.kl[row, position]):.2f} nats from the end."
    if lens.translators is not None and row < len(lens.translators.gained):
        plain, gained = lens.translators.plain[row], lens.translators.gained[row]
        said += f" On texts kept apart: {gained:.2f} after this block, through the logit lens {plain:.2f}."
    return f"{said} {lens.note[:1].upper()}{lens.note[1:]}." if lens.note else said


def who_sentence(table: pd.DataFrame, total: float) -> str:
    """How much of the answer a few heads carry."""
    heads = table[table["part"] == "head"]
    if len(heads) < 4:
        return ""
    several, toward = _several(table), heads["value"] * math.copysign(1, total)
    ranked = heads.reindex(toward.sort_values(ascending=False, kind="stable").index)
    names = [_part(row, several).name.replace("head ", "") for row in ranked.itertuples()]
    values = ranked["value"].to_numpy(float)
    said = f"Heads {names[0]}, {names[1]} and {names[2]} put on {signed_number(values[:3].sum())}"
    if values[-1] * total < 0:
        said += f"; {names[-1]} works most against it, {signed_number(values[-1])}"
    return f"{said}. All together: {signed_number(total)}."


def turning_sentence(table: pd.DataFrame) -> str:
    """Where the stream turns most, and where it is longest. ``table`` is of ``norms``."""
    known = table[table["cosine"].notna()]
    if known.empty:
        return ""
    turn, long = known.loc[known["cosine"].idxmin()], table.loc[table["norm"].idxmax()]
    where = [f"{state_name(row['after'])} at {visible(row['token'])} ({row['position']})" for row in (turn, long)]
    said = f"It turns most {where[0]}, to a cosine of {turn['cosine']:.2f}; it is longest {where[1]}, "
    return (said + f"{short(float(long['norm']))}.").replace("-0.", "−0.")


# -- words ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Suggestion:
    """An answer that a model itself would give: ``asked`` is what a person types for it, ``name`` how it reads."""

    token: int
    asked: str
    name: str
    probability: float


def suggestions(cap: Capture, position: int | None = None, count: int = 10) -> tuple[Suggestion, ...]:
    """What a model itself would answer, the most probable first; () where it gives no answer."""
    try:
        place = answer_position(cap) if position is None or not cap.scores_positions else position
        row = row_at(cap, place)
    except (InputError, IndexError):
        return ()
    best = top(distribution(row, Sampling()), cap.subject, count)
    labels = cap.subject.labels if place is None else ()
    found = []
    for token, label, probability in best:
        name = labels[token] if token < len(labels) else label
        found.append(Suggestion(token, _asked(cap, token, name, len(row), place), name, probability))
    return tuple(found)


def place_asked(cap: Capture, asked: int) -> int | None:
    """A position at which an answer may be asked for; None, which is where the model gives its own, for any other."""
    return asked if cap.scores_positions and 0 <= asked < cap.result.length else None


def _asked(cap: Capture, token: int, name: str, size: int, place: int | None) -> str:
    """A name that ``target`` takes for this token; its number where the name would be another's."""
    try:
        same = tokens_of(cap, name, size, place) == (token,)
    except InputError:
        same = False
    return name if same else f"#{token}"


def wanted(text: str) -> int | str | None:
    """What a person typed, for ``target``: "" is what the model says, "#12" the token or class of that number."""
    number = text.removeprefix("#")
    return int(number) if number != text and number.isdecimal() else text or None


def no_answer(name: str, anatomy: Anatomy) -> str:
    """Why nothing can be asked about the answer of a model with streams; "" where something can."""
    if anatomy.readout is None or anatomy.readout.kind == "none":
        why = anatomy.readout.why_not if anatomy.readout is not None else "nothing is read off it"
        return f"{name} gives no answer that could be asked about: {why.rstrip('.')}."
    return ""


def shortened(text: str, name: str) -> str:
    """That of a word of several tokens only the first is looked at; "" where it is one."""
    word = text.replace("·", " ").strip()
    if not word or text.startswith("#") or word == name.strip():
        return ""
    return f"“{word}” is several tokens; what is looked at is the first, {visible(name)}."


def question(aim: Target) -> str:
    """ "why ·Mary rather than ·John?" """
    one, other = (visible(name) for name in aim.names)
    return f"Why {one}?" if aim.against is None else f"Why {one} rather than {other}?"


def signed_number(value: float) -> str:
    """A value in a list of parts."""
    if abs(value) < 0.005:
        return "0.00"
    text = f"{value:+.2f}" if abs(value) < 100 else f"{value:+,.0f}"
    return text.replace("-", "−")


def short(value: float) -> str:
    """A length where room is short: 3 digits at most."""
    return (f"{value / 1e3:.2g}k" if abs(value) >= 999.5 and abs(value) < 1e6 else brief(value)).replace("-", "−")


def percent(chance: float) -> str:
    """A probability."""
    return f"{chance:.0%}" if chance >= 0.0995 else f"{chance:.1%}" if chance >= 0.0005 else "< 0.1%"


def error(value: float | None) -> str:
    """A relative error in a line."""
    if value is None:
        return "not measured"
    return f"{value:.0e}".replace("e-0", "e-").replace("-", "−") if value else "0"


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values, float)
