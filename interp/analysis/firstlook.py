"""Where to look first in a model that nobody has looked into yet."""

from __future__ import annotations

import pandas as pd

from headwise.interp.run.capture import Capture

CYCLIC = ("period", "next_period", "next_in_voice")  # metrics of heads that follow a period
FOLLOWED = 1e-3  # bits of information about the query; of one query it is 0, up to rounding


def first_stack(cap: Capture) -> str:
    """Where two sequences meet, if there are two."""
    return "cross" if "cross" in cap.stacks else cap.stacks[0]


def first_head(cap: Capture, table: pd.DataFrame, stack: str) -> tuple[int, int]:
    """(layer, head) of the head of a stack that is most worth a look; ``table`` holds the stack's metrics, a head a
    row (``headwise.sweep``).

    The best induction head where there are scores for it; of a series or a score the head that follows its period best;
    across, the head that follows its queries best (the
    sharpest, while there is one query); of a model that sees, the first head of the last layer; else the first.
    """
    if "induction" in table and table.induction.notna().any():
        row = table.loc[table.induction.idxmax()]
    elif "period" in table and table.period.notna().any():
        row = table.loc[table.filter(items=CYCLIC).max(axis=1).idxmax()]
    elif stack == "cross":
        followed = table.information.max() > FOLLOWED
        row = table.loc[table.information.idxmax() if followed else table.entropy.idxmin()]
    else:
        row = (table[table.layer == table.layer.max()] if cap.subject.family == "vision" else table).iloc[0]
    return int(row["layer"]), int(row["head"])


def furthest_head(table: pd.DataFrame) -> tuple[int, int]:
    """(layer, head) of the head that looks furthest on average: what cannot see far has most to lose there."""
    row = table.loc[table.distance.idxmax()]
    return int(row["layer"]), int(row["head"])
