"""Who says it: the answer taken apart into what each head, MLP and embedding writes straight onto it.

Direct logit attribution (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "The residual stream
as a communication channel"; Wang et al. 2023, §3): with the last norm held still the logits are linear in the stream,
and the stream is a sum. What a part does through later parts is not in its figure: for that, remove it and look.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from headwise.interp.analysis.targets import Target, Wanted, target
from headwise.interp.errors import InputError
from headwise.interp.run.anatomy import Part, Parts
from headwise.interp.run.capture import Capture

NAMES = {"embedding": "embedding", "mlp": "MLP", "mixer": "mixer", "mixed": "mixed block", "other": "other"}
COLUMNS = ["part", "name", "block", "stack", "layer", "head", "value"]


def logit_attribution(
    cap: Capture, wanted: Wanted | Target = None, against: Wanted = None, *, position: int | None = None
) -> pd.DataFrame:
    """The logit of an answer, or how far it stands above that of another, as the sum of direct contributions.

    ``wanted``, ``against`` and ``position`` are those of ``targets.target``. One line for each part that is there:
    ``part`` "embedding", "head" (of self-attention or cross-attention), "attention" (whole, where its heads are not
    proven), "mlp", "mixer", "mixed" or "constant" (biases of output projections, norms and unembedding) · ``name`` ·
    ``block`` in the stream · ``stack``, ``layer`` and ``head`` as in the capture · ``value`` in logits.

    ``attrs``: "target" in words, "own" the model's own figure before a soft cap, "total" the sum of the lines,
    "remainder" what they leave unexplained, "cap" the soft cap or None. Raises InputError where the logits are no
    linear function of the stream's end, and for what is no answer.
    """
    chosen, parts = _parts(cap, wanted, against, position)
    layers = {(call.name, call.occurrence): call for call in cap.calls}
    lines = []
    for part in parts:
        call = layers.get(part.call) if part.call is not None else None
        kind = "head" if part.head is not None else part.kind
        stack, layer = (call.stack, call.layer) if call is not None else ("", None)
        lines.append((kind, _named(part, stack, layer), part.block, stack, layer, part.head, part.value))
    table = pd.DataFrame(lines, columns=COLUMNS).astype({"block": "Int64", "layer": "Int64", "head": "Int64"})
    readout = cap.anatomy.readout
    table.attrs = {
        "target": str(chosen),
        "own": parts.value,
        "total": float(table["value"].sum()),
        "remainder": parts.remainder,
        "cap": readout.cap if readout is not None else None,
    }
    return table


def by_position(
    cap: Capture, wanted: Wanted | Target = None, against: Wanted = None, *, position: int | None = None
) -> pd.DataFrame:
    """From which positions heads fetched what they write straight onto the answer: each head's contribution split over
    its keys by a · v, summed over all heads.

    One line a position: ``sequence`` ("self" or "cross"), ``position``, ``token``, ``value``. ``attrs``: "own" the
    model's own figure, "rest" what no head fetched (embedding, MLPs, constants, heads whose values were not seen).
    Raises InputError as ``logit_attribution`` does.
    """
    _, parts = _parts(cap, wanted, against, position)
    calls = {(call.name, call.occurrence): call for call in cap.calls}
    sums: dict[str, Tensor] = {}
    axes = {}
    for part in parts:
        call = calls.get(part.call) if part.head is not None else None
        keys = part.by_key() if call is not None else None
        if keys is None:
            continue
        fetched = keys[0].sum(0).double()  # (K,)
        name = call.kind if call.kind == "cross" else "self"
        if name in sums and len(sums[name]) != len(fetched):
            continue  # a layer that looks at other positions, such as compressed ones
        sums[name] = sums.get(name, torch.zeros_like(fetched)) + fetched
        axes.setdefault(name, call.key_axis)
    lines = [
        (name, index, axes[name].labels[index], value)
        for name, values in sums.items()
        for index, value in enumerate(values.tolist())
    ]
    table = pd.DataFrame(lines, columns=["sequence", "position", "token", "value"])
    table.attrs = {"own": parts.value, "rest": parts.value - float(table["value"].sum())}
    return table


def strongest(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The ``count`` largest lines of an attribution by size, the others summed by kind ("257 other heads")."""
    order = table["value"].abs().sort_values(ascending=False, kind="stable").index
    shown = table.loc[order[:count]].sort_values("value", ascending=False)
    lines = [shown]
    for kind, others in table.loc[order[count:]].groupby("part", sort=False):
        word = NAMES.get(kind, kind) if len(others) == 1 else f"{NAMES.get(kind, kind)}s"
        name = f"{len(others)} other {word}"
        lines.append(pd.DataFrame([(kind, name, None, "", None, None, others["value"].sum())], columns=COLUMNS))
    return pd.concat([line.astype(table.dtypes) for line in lines], ignore_index=True)


def _parts(cap: Capture, wanted: Wanted | Target, against: Wanted, position: int | None) -> tuple[Target, Parts]:
    chosen = target(cap, wanted, against, position)
    if chosen.measure != "logit":
        raise InputError("Direct contributions add up to logits, not to log-probabilities. Ask for the logit.")
    return chosen, cap.stream.parts(lambda logits: chosen.measured(logits)[0])


def _named(part: Part, stack: str, layer: int | None) -> str:
    if part.head is not None:
        own = "" if stack in ("", "self", "decoder", "encoder") else f"{stack} "
        return f"{own}{layer if layer is not None else part.block}·{part.head} head"
    if part.kind == "constant":
        return f"constant of {part.name}" if part.name else "constant"
    word = NAMES.get(part.kind, part.kind)
    return word if part.block is None else f"{word} {part.block}"
