"""The circuit of one answer, ready to be drawn: tokens down the side, depth to the right, parts where they write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from headwise.interp.analysis.circuits.graph import Circuit, Edge
from headwise.interp.analysis.circuits.wires import Node
from headwise.interp.drawing.paper.text import visible
from headwise.interp.drawing.streams import Cells, Head, signed_number
from headwise.interp.run.capture import Capture

INTO = {  # a way in → its colour in light and dark, and what it decides
    "q": ("#9c4f96", "#d795d0", "query: what is looked for"),
    "k": ("#b26a00", "#eaaa4c", "key: where it is found"),
    "v": ("#0b6e99", "#62b8dd", "value: what is brought"),
    "": ("#6d7480", "#9aa3b0", "read as a whole"),
}
WORDS = {"q": "query", "k": "key", "v": "value", "": ""}


@dataclass(frozen=True)
class Place:
    """A part where it is drawn: ``column`` counts depth, 0 is the tokens; ``line`` counts lines from the top.
    ``weight`` is the largest effect of an edge from it, as a share of the largest of all."""

    key: str
    label: str
    name: str
    column: int
    line: float
    kind: str
    weight: float


@dataclass(frozen=True)
class Wire:
    """An edge from the place ``start`` to the place ``end``. ``size`` is its share of the largest effect."""

    start: str
    end: str
    into: str
    effect: float
    size: float
    told: str


@dataclass(frozen=True)
class Drawn:
    """``rows``: (first line, lines, what the position reads) · ``columns``: what stands over each, "" over some."""

    rows: tuple[tuple[float, int, str], ...]
    columns: tuple[str, ...]
    places: tuple[Place, ...]
    wires: tuple[Wire, ...]

    @property
    def lines(self) -> int:
        return sum(row[1] for row in self.rows)


def drawn(circuit: Circuit) -> Drawn:
    """Where everything stands. A part is in the row of the position at which most of what it writes passes; what a
    token's embedding writes begins at the token."""
    at = {node: _position(circuit, node) for node in circuit.nodes if node.kind != "embedding"}
    starts = {(e.sender.stream, e.position) for e in circuit.edges if e.sender.kind == "embedding"}
    order = {name: number for number, name in enumerate(circuit.axes)}
    here = sorted({*at.values(), *starts}, key=lambda place: (-order[place[0]], place[1]))
    stages = sorted({_stage(node) for node in at})
    columns = {stage: number for number, stage in enumerate(stages, 1)}
    groups: dict[tuple, list[Node]] = {}
    for node in sorted(at, key=lambda node: (node.stack, node.head or 0)):
        groups.setdefault((at[node], columns[_stage(node)]), []).append(node)
    rows, lines, first = [], {}, 0
    for place in here:
        count = max([1, *(len(nodes) for (where, _), nodes in groups.items() if where == place)])
        lines[place] = first, count
        rows.append((float(first), count, _token(circuit, *place)))
        first += count
    most = max(abs(edge.effect) for edge in circuit.edges)
    places = [
        Place(f"{stream}@{position}", "", f"embedding of {_token(circuit, stream, position)}", 0,
              lines[stream, position][0] + (lines[stream, position][1] - 1) / 2, "embedding", 0.0)
        for stream, position in starts
    ]  # fmt: skip
    for (where, column), nodes in groups.items():
        begin, count = lines[where]
        for number, node in enumerate(nodes):
            line = begin + (count - len(nodes)) / 2 + number
            places.append(_place(circuit, node, column, line, most))
    wires = [wire for edge in circuit.edges for wire in _wires(circuit, edge, most)]
    return Drawn(tuple(rows), _heads_of_columns(stages), tuple(places), tuple(wires))


def key_of(node: Node) -> str:
    """What tells a part from all others."""
    if node.kind == "head":
        return head_key(node.stack, node.layer, node.head)
    return f"{node.stream} {node.kind}" if node.block is None else f"{node.stream} {node.kind} {node.block}"


def head_key(stack: str, layer: int, head: int) -> str:
    """The key of a head."""
    return f"{stack} head {layer} {head}"


def named(cap: Capture, head: Head) -> str:
    """What a head is called among those of its model."""
    stack, layer, number = head
    return f"{f'{stack} ' if len(cap.stacks) > 1 else ''}head {layer}·{number}"


def find(circuit: Circuit, key: str) -> Node | None:
    """The node of a key."""
    return next((node for node in circuit.nodes if key_of(node) == key), None)


def about_edges(circuit: Circuit, node: Node) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of bars: what a part hears, and who hears it, the strongest first."""
    heard = [(f"{e.sender}{_through(e)}", e.sender, e) for e in circuit.edges if node in e.receivers]
    told = [(f"{_ends(e)}{_through(e)}", e.receivers[0], e) for e in circuit.edges if e.sender == node]
    return tuple(
        [
            {"name": name, "value": edge.effect, "text": signed_number(edge.effect), "head": _head_of(other)}
            for name, other, edge in found
        ]
        for found in (heard, told)
    )


def sentence(circuit: Circuit) -> str:
    """What the graph shows, in one sentence."""
    return (
        f"{len(circuit.edges)} of {circuit.possible:,} edges, run alone with everything else from {circuit.against}, "
        f"restore {circuit.restored:.0%} of the difference."
    )


def legend() -> list[dict[str, str]]:
    """The ways into a part: name, colours, words."""
    return [{"into": into, "light": light, "dark": dark, "told": told} for into, (light, dark, told) in INTO.items()]


SIGNS = {  # of a summary of eigenvalues: for, against, neither
    "copying": ("it writes for the token it looks at", "it writes against the token it looks at",
                "it writes neither for nor against the token it looks at"),
    "matching": ("it looks for the token it looks from", "it looks away from the token it looks from",
                 "the token it looks from does not matter to where it looks"),
}  # fmt: skip


def over_all(copying: float | None, matching: float | None) -> list[str]:
    """What the circuits of a head do with all tokens of the vocabulary, a sentence each."""
    told = []
    for name, lead, value in (
        ("copying", "Over the whole vocabulary", copying),
        ("matching", "By embeddings", matching),
    ):
        if value is not None:
            said = SIGNS[name][0 if value > 0.1 else 1 if value < -0.1 else 2]
            told.append(f"{lead} {said} ({value:+.2f} of −1 … +1).".replace("-", "−"))
    return told


# -- compositions -----------------------------------------------------------------------------------------------------
def layers_shown(layers: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Layers by stack and number as the map has them, the first at the bottom."""
    ranks = {"encoder": 0, "cross": 2}
    return sorted(set(layers), key=lambda one: (one[1], ranks.get(one[0], 1)), reverse=True)


def wiring(table: pd.DataFrame, head: Head, kind: str, calls: Sequence[tuple[str, int, int]]) -> Cells:
    """How a head is wired to all others, layers down and heads across: earlier heads by what it reads of them, later
    ones by what they read of it. ``calls``: stack, layer and heads of each attention."""
    scores = _scores(table, head, kind)
    layers = layers_shown([(stack, layer) for stack, layer, _ in calls])
    wide = max(heads for _, _, heads in calls)
    whole = np.array([[scores.get((s, n, h), np.nan) for h in range(wide)] for s, n in layers])
    places = [r for r, one in enumerate(layers) if np.isfinite(whole[r]).any() or one == head[:2]]
    values, layers = whole[places], [layers[place] for place in places]
    most = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    several = len({stack for stack, _ in layers}) > 1
    return Cells(
        tuple(f"{stack if several else 'layer'} {layer}" for stack, layer in layers),
        tuple(map(str, range(wide))),
        values,
        0.5 + 0.5 * values / most,
        f"{kind}-composition",
        f"−{most:.3f}",
        f"+{most:.3f}",
        tuple(places),
        signed=True,
    )


def wiring_sentence(table: pd.DataFrame, head: Head, kind: str) -> str:
    """Whom a head reads most, and who reads it most."""
    scores = _scores(table, head, kind)
    own = table[table["kind"] == kind]
    before = {tuple(row) for row in own[["from stack", "from layer", "from head"]][_into(own, "to", head)].to_numpy()}
    told = []
    for words, found in (("it reads most of", before), ("it is read most by", set(scores) - before)):
        if found:
            best = max(found, key=scores.__getitem__)
            told.append(f"{words} head {_short(*best)} ({scores[best]:+.3f})".replace("-", "−"))
    side = {"Q": "queries", "K": "keys", "V": "values"}[kind]
    return f"Through {side}, {' and '.join(told)}." if told else f"Nothing composes with it through {side}."


def _into(table: pd.DataFrame, side: str, head: Head) -> pd.Series:
    stack, layer, number = head
    return (table[f"{side} stack"] == stack) & (table[f"{side} layer"] == layer) & (table[f"{side} head"] == number)


def _scores(table: pd.DataFrame, head: Head, kind: str) -> dict[Head, float]:
    """The score with each other head."""
    own, found = table[table["kind"] == kind], {}
    for side, other in (("to", "from"), ("from", "to")):
        lines = own[_into(own, side, head)]
        for row in lines[[f"{other} stack", f"{other} layer", f"{other} head", "score"]].itertuples(index=False):
            found[str(row[0]), int(row[1]), int(row[2])] = float(row[3])
    return found


def strongest(table: pd.DataFrame, kind: str, count: int) -> list[dict[str, Any]]:
    """Rows of bars: the pairs of heads that compose most in one way."""
    found = table[table["kind"] == kind].head(count)
    return [
        {
            "name": f"{_short(row['from stack'], row['from layer'], row['from head'])} → "
            f"{_short(row['to stack'], row['to layer'], row['to head'])}",
            "value": float(row["score"]),
            "text": f"{row['score']:+.3f}".replace("-", "−"),
            "head": (row["to stack"], int(row["to layer"]), int(row["to head"])),
        }
        for _, row in found.iterrows()
    ]


# -- inside -----------------------------------------------------------------------------------------------------------
def _short(stack: str, layer: int, head: int) -> str:
    return f"{'cross ' if stack == 'cross' else ''}{layer}·{head}"


def _position(circuit: Circuit, node: Node) -> tuple[str, int]:
    """Where most of a part's writing passes; of the answer, where most reaches it."""
    own = [e for e in circuit.edges if (node in e.receivers if node.kind == "logits" else e.sender == node)]
    sums: dict[int, float] = {}
    for edge in own:
        sums[edge.position] = sums.get(edge.position, 0.0) + abs(edge.effect) + 1e-12
    return node.stream, max(sums, key=lambda position: sums[position])


def _stage(node: Node) -> tuple:
    """The column: by stream, block, and attention before what follows it."""
    if node.kind == "logits":
        return 9, 0, 0
    return int(not node.stream.startswith("enc")), node.block or 0, {"head": node.stack == "cross"}.get(node.kind, 2)


def _heads_of_columns(stages: Sequence[tuple]) -> tuple[str, ...]:
    """Blocks, each said once; nothing over the tokens."""
    several = len({stage[0] for stage in stages} - {9}) > 1
    told, before = [""], None
    for stage in stages:
        block, lead = stage[:2], ("enc ", "dec ")[stage[0] == 1] if several else ""
        told.append("" if block == before or stage[0] == 9 else f"{lead}{stage[1]}")
        before = block
    return tuple(told)


def _token(circuit: Circuit, stream: str, position: int) -> str:
    labels = circuit.axes[stream].labels
    return visible(labels[position]) if position < len(labels) else str(position)


def _place(circuit: Circuit, node: Node, column: int, line: float, most: float) -> Place:
    sent = [abs(edge.effect) for edge in circuit.edges if edge.sender == node or node.kind == "logits"]
    label = {"head": f"{node.layer}·{node.head}", "mlp": "MLP", "logits": str(circuit.target)}.get(node.kind, node.kind)
    return Place(key_of(node), label, str(node), column, line, node.kind, max(sent, default=0.0) / most)


def _head_of(node: Node) -> Head | None:
    return (node.stack, node.layer, node.head) if node.kind == "head" else None


def _wires(circuit: Circuit, edge: Edge, most: float) -> list[Wire]:
    sender = edge.sender
    start = f"{sender.stream}@{edge.position}" if sender.kind == "embedding" else key_of(sender)
    gap = circuit.clean - circuit.base
    told = (
        f"{sender} → {_ends(edge)}{_through(edge)}, mostly at {_token(circuit, sender.stream, edge.position)}: without "
        f"it the graph loses {signed_number(edge.effect)} logits, {edge.effect / gap:.0%} of the difference"
    )
    return [Wire(start, key_of(node), edge.into, edge.effect, abs(edge.effect) / most, told) for node in edge.receivers]


def _ends(edge: Edge) -> str:
    return ", ".join(map(str, edge.receivers))


def _through(edge: Edge) -> str:
    return f" ({WORDS[edge.into]})" if edge.into else ""
